"""Every embedded bundle against what its float32 checkpoint answered when it was exported; needs no torch."""

from pathlib import Path

import pytest

from models.export.sample import distance
from tests.models.embedded import QUESTION_ANSWERING, RECOMMENDATION, SUMMARIZATION, TRANSLATION, opened

REFERENCES = Path(__file__).parent / "reference"

RELATIVE_ERROR = {"en-fr": 0.06, "minilm-squad": 0.06, "online-retail": 0.06, "arxiv-title": 0.06}
"""Most that int8 may be off, root mean square by the spread of the logits.

Rounding to 127 levels costs a weight or an activation about 1/127/sqrt(12) of its row's largest value, which is 1 % of
a typical value; errors of independent layers add up in squares, so that 25 to 50 linear maps on a residual stream come
to 1 to 3 %. Twice that means that something else is wrong.
"""

AGREEMENT = 0.9
"""Least part of choices that int8 shares with float32: a choice flips where the two best are closer than the error."""


@pytest.mark.parametrize(
    "folder", [TRANSLATION, SUMMARIZATION, QUESTION_ANSWERING, RECOMMENDATION], ids=lambda folder: folder.name
)
def test_int8_answers_are_near_the_checkpoints(folder: Path) -> None:
    bundle = opened(folder)
    found = distance(bundle, "int8", REFERENCES / f"{bundle.manifest.name}.npz")
    assert found.relative_error <= RELATIVE_ERROR[bundle.manifest.name]
    assert found.agreement >= AGREEMENT
