"""The mixture of a model with a table of neighbours, against the same computed by hand."""

import pytest

torch = pytest.importorskip("torch")

from models.nets.neighbours import Neighbours  # noqa: E402


def test_the_mixture_is_that_of_probabilities() -> None:
    table = Neighbours(3, 2, length=5, recency=0.5, share=0.25)
    table.ids[1], table.weights[1] = torch.tensor([3, 0]), torch.tensor([0.6, 0.0])
    table.ids[2], table.weights[2] = torch.tensor([1, 3]), torch.tensor([0.5, 0.2])
    scores = torch.tensor([[9.0, 1.0, 2.0, 0.5], [9.0, 1.0, 2.0, 0.5]])
    mixed = table(
        scores, tokens=torch.tensor([1, 2, 2]), rows=torch.tensor([0, 0, 1]), lags=torch.tensor([1, 0, 0])
    ).exp()
    # The first history holds items 1 and 2, so that the model's whole part goes to item 3.
    torch.testing.assert_close(mixed[0, 3].item(), 0.75 + 0.25 * (0.5 * 0.6 + 0.2) / 1.5)
    torch.testing.assert_close(mixed[0, 1].item(), 0.25 * 0.5 / 1.5)
    part = torch.tensor([1.0, 0.5]).softmax(0)
    torch.testing.assert_close(mixed[1, 1].item(), (0.75 * part[0] + 0.25 * 0.5).item())
    torch.testing.assert_close(mixed[1, 3].item(), (0.75 * part[1] + 0.25 * 0.2).item())
    assert 0 < mixed[1, 2] < 1e-9
