"""What a bundle holds in int8 comes back into the model of its checkpoint, near enough to train on."""

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from models.bundle import Bundle  # noqa: E402
from models.errors import BundleError  # noqa: E402
from models.export.write import export  # noqa: E402
from models.train.restore import restore  # noqa: E402
from tests.export.checkpoints import bert, marian, recipe  # noqa: E402

TOKENS = torch.tensor([[5, 9, 2, 7, 11, 3]])


def exported(checkpoint: Path, task: str, out: Path) -> Bundle:
    return export(checkpoint, task, out, recipe(task))[0]


def logits(model: Any) -> Any:
    given = {"decoder_input_ids": TOKENS} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        found = model.eval()(input_ids=TOKENS, **given)
    return found.logits if given else torch.cat([found.start_logits, found.end_logits])


@pytest.mark.parametrize(
    ("task", "write", "kind"),
    [("translation", marian, "MarianMTModel"), ("question-answering", bert, "BertForQuestionAnswering")],
)
def test_a_restored_model_says_what_the_checkpoint_did(task: str, write: Any, kind: str, tmp_path: Path) -> None:
    original = getattr(transformers, kind).from_pretrained(write(tmp_path / "checkpoint"))
    bundle = exported(tmp_path / "checkpoint", task, tmp_path / "bundle")
    torch.manual_seed(99)
    fresh = type(original)(original.config)
    wanted = logits(original)
    spread = wanted.std()
    assert (logits(fresh) - wanted).std() > 0.5 * spread
    restore(fresh, bundle)
    assert (logits(fresh) - wanted).std() < 0.1 * spread
    for name, tensor in original.state_dict().items():
        if "position" in name:  # the bundle holds the first ones alone
            continue
        largest = tensor.abs().max()
        assert (fresh.state_dict()[name] - tensor).abs().max() <= largest / 127, name


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    bundle = exported(bert(tmp_path / "checkpoint"), "question-answering", tmp_path / "bundle")
    wider = bert(tmp_path / "wider", intermediate_size=64)
    model = transformers.BertForQuestionAnswering.from_pretrained(wider)
    with pytest.raises(BundleError, match=r"forward's encoder\.layers\.0\.feed_forward\.inner\.weight is \[48, 32\]"):
        restore(model, bundle)
