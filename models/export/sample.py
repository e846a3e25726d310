"""How far graphs are from stored answers of the checkpoint: for `heedful check` and tests, without torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle import Bundle, Precision
from models.errors import BundleError
from models.export.reference import load_reference
from models.export.replay import replay
from models.task import Array

TOLERANCE: Mapping[Precision, float] = {"fp32": 1e-3, "fp16": 0.01, "int8": 0.25}
"""Largest relative error.

fp32: another order of summation, or a GPU's, explains no more. fp16: eleven bits at each of some fifty linear maps give
.003 when all errors add up; tiny models have .0005 to .001. int8: .01 to .05 was measured on trained weights and .15 on
tiny random ones, which spread worst; where the error is a quarter of the logits' own spread, likely and unlikely
answers change places.
"""


@dataclass(frozen=True, slots=True)
class Distance:
    """From the checkpoint.

    Args:
        relative_error: root mean square of the differences, divided by the standard deviation of the logits.
        agreement: how often the same token, item or place is the likeliest, in [0, 1].
    """

    relative_error: float
    agreement: float


def distance(bundle: Bundle, precision: Precision, reference: Path) -> Distance:
    """Run the rows of a reference file through the bundle's graphs."""
    rows, expected = load_reference(reference)
    found = replay(bundle, precision, rows, [answer.get("target") for answer in expected])
    return _distance(found, expected)


def check_sample(bundle: Bundle, precision: Precision) -> Distance | None:
    """Hold the graphs against the answers that the bundle carries.

    Returns:
        None where it carries none.

    Raises:
        BundleError: they are further from them than the precision explains.
    """
    if bundle.manifest.parity is None:
        return None
    found = distance(bundle, precision, bundle.path(bundle.manifest.parity))
    if not found.relative_error <= TOLERANCE[precision]:
        raise BundleError(
            f"{bundle.folder}: the {precision} graphs are {found.relative_error:.1e} from the checkpoint's answers,"
            f" at most {TOLERANCE[precision]:.1e} is allowed"
        )
    return found


def _distance(found: Sequence[Mapping[str, Array]], expected: Sequence[Mapping[str, NDArray[Any]]]) -> Distance:
    squares, spreads, choices = [], [], []
    for ours, theirs in zip(found, expected, strict=True):
        for name, array in ours.items():
            kept = np.take_along_axis(array, theirs["logits_ids"], -1) if name == "logits" else array
            squares.append(((kept - theirs[name]) ** 2).ravel())
            spreads.append(((theirs[name] - theirs[name].mean(-1, keepdims=True)) ** 2).ravel())
            best = theirs["logits_ids"][:, 0] if name == "logits" else theirs[name].argmax()
            choices.append(np.atleast_1d(array.argmax(-1) == best))
    error = np.sqrt(np.concatenate(squares).mean() / np.concatenate(spreads).mean())
    return Distance(float(error), float(np.concatenate(choices).mean()))
