"""How far a bundle's graphs are from the checkpoint that they were made from."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.bundle import Bundle, Manifest, Precision
from models.export.checkpoint import Answer, Checkpoint
from models.export.errors import ExportError
from models.export.memory import trim
from models.export.replay import replay
from models.export.sample import TOLERANCE
from models.load import load_model
from models.task import Array, Generation, Row

FP32_TOLERANCE = 1e-4
"""Largest difference of a float32 logit, and of larger logits as a part of the largest beside it.

Measured: 4e-6; another order of summation explains no more than that. What rounding loses grows with the numbers that
are added, and the logits of a T5 reach 50, where graphs that are right were seen to differ by 3e-3 (optimum's issue
449).
"""

RANDOM_LENGTHS = (21, 1, 9, 40, 16, 3)
"""Of rows with random tokens: ragged, around and beyond the width that rows are padded to."""

RANDOM_NEW_TOKENS = 12
RANDOM_BEAMS = 4


@dataclass(frozen=True, slots=True)
class Parity:
    """Numbers of one precision against the checkpoint.

    Args:
        largest_difference: of any logit.
        scaled_difference: the largest after each was divided by the size of the largest logit of the same position,
            where that is above 1.
        relative_error: root mean square of the differences, divided by the standard deviation of the logits.
        agreement: how often the same token, item or place is the likeliest, in [0, 1]; tokens are compared with the
            decoder given what the checkpoint decoded.
        greedy: the part of rows, in [0, 1], that decode greedily to the very tokens of the checkpoint; None where
            nothing is decoded so.
        beams: the same of rows that decode with beams.
    """

    precision: Precision
    largest_difference: float
    scaled_difference: float
    relative_error: float
    agreement: float
    greedy: float | None
    beams: float | None


def random_rows(vocabulary: int, manifest: Manifest) -> list[Row]:
    """Rows of random tokens; the same ones each time.

    Where something is decoded, as the manifest says but once greedily and once with beams.
    """
    rng = np.random.default_rng(0)
    lengths = [min(length, manifest.limits.max_tokens) for length in RANDOM_LENGTHS]
    sources = [rng.integers(1, vocabulary, length) for length in lengths]
    if (defaults := manifest.generation) is None:
        return [Row(source) for source in sources]
    greedy = Generation(
        max_new_tokens=min(RANDOM_NEW_TOKENS, manifest.limits.max_new_tokens),
        repetition_penalty=defaults.repetition_penalty,
        no_repeat_ngram_size=defaults.no_repeat_ngram_size,
        length_penalty=defaults.length_penalty,
        early_stopping=defaults.early_stopping,
    )
    beams = replace(greedy, num_beams=defaults.num_beams if defaults.num_beams > 1 else RANDOM_BEAMS)
    return [Row(source, generation=generation) for generation in (greedy, beams) for source in sources]


def answers(checkpoint: Checkpoint, rows: Sequence[Row]) -> list[Answer]:
    """What the checkpoint itself computes, row by row."""
    return [checkpoint.answer(row) for row in rows]


def compare(bundle: Bundle, precision: Precision, rows: Sequence[Row], expected: Sequence[Answer]) -> Parity:
    """Run all rows side by side through the bundle's graphs and hold every logit against the checkpoint's.

    In lean sessions: two of the usual kind would be the most memory that an export takes.
    """
    squares, spreads, choices = 0.0, 0.0, list[NDArray[np.bool_]]()
    largest, scaled = list[Array](), list[Array]()
    size = 0
    found = replay(bundle, precision, rows, [row.get("target") for row in expected], lean=True)
    for ours, theirs in _pairs(found, expected):
        difference = ours - theirs
        largest.append(np.abs(difference).max(-1))
        scaled.append(largest[-1] / np.maximum(1, np.maximum(theirs.max(-1), -theirs.min(-1))))
        squares += float(np.square(difference, out=difference).sum(dtype=np.float64))
        spreads += float(np.square(theirs - theirs.mean(-1, keepdims=True)).sum(dtype=np.float64))
        choices.append(ours.argmax(-1) == theirs.argmax(-1))
        size += difference.size
    del found
    trim()  # logits of every step
    decoded = _decoded(bundle, precision, rows, expected)
    return Parity(
        precision=precision,
        largest_difference=float(np.concatenate(largest).max()),
        scaled_difference=float(np.concatenate(scaled).max()),
        relative_error=math.sqrt(squares / max(spreads, 1e-12 * size)),
        agreement=float(np.concatenate(choices).mean()),
        greedy=_part(same for row, same in zip(rows, decoded, strict=True) if not _has_beams(row)),
        beams=_part(same for row, same in zip(rows, decoded, strict=True) if _has_beams(row)),
    )


def _pairs(found: list[dict[str, Array]], expected: Sequence[Answer]) -> Iterator[tuple[Array, Array]]:
    """Each output of each row beside the checkpoint's, in two dimensions or more; `found` is emptied on the way."""
    for theirs in expected:
        for name, ours in found.pop(0).items():
            yield np.atleast_2d(ours), np.atleast_2d(theirs[name])


def _has_beams(row: Row) -> bool:
    return row.generation is not None and row.generation.num_beams > 1


def _part(same: Iterable[bool | None]) -> float | None:
    known = [each for each in same if each is not None]
    return float(np.mean(known)) if known else None


def _decoded(
    bundle: Bundle, precision: Precision, rows: Sequence[Row], expected: Sequence[Answer]
) -> Sequence[bool | None]:
    """Whether each row decodes to the checkpoint's tokens; None where nothing is decoded."""
    if "decoded" not in expected[0]:
        return [None] * len(rows)
    asked = [row.generation for row in rows if row.generation]
    needed = {
        "max_tokens": max(len(row.tokens) for row in rows),
        "max_new_tokens": max(generation.max_new_tokens for generation in asked),
    }
    limits = bundle.manifest.limits.model_copy(update=needed)  # caches of no more than these rows fill
    fitting = replace(bundle, manifest=bundle.manifest.model_copy(update={"limits": limits}))
    model = load_model(fitting, precision, slots=sum(generation.num_beams for generation in asked), lean=True)
    model.admit(dict(enumerate(rows)))
    decoded: list[list[int]] = [[] for _ in rows]
    while events := model.step():
        for event in events:
            decoded[event.row].extend(event.tokens)
    end = bundle.manifest.generation.eos_token_id if bundle.manifest.generation else None
    wanted = [[token for token in row["decoded"].tolist() if token != end] for row in expected]
    return [ours == theirs for ours, theirs in zip(decoded, wanted, strict=True)]


def require_parity(parity: Parity) -> None:
    """Refuse graphs that do not compute what the checkpoint computes, as near as their precision allows.

    Raises:
        ExportError: float32 logits differ by more than the tolerance or a row decodes to other tokens; float16 or int8
            logits have a larger relative error than the tolerance.
    """
    if parity.precision != "fp32":
        most = TOLERANCE[parity.precision]
        if not parity.relative_error <= most:
            raise ExportError(
                f"{parity.precision} changes the logits by {parity.relative_error:.2f} of their spread, at most {most}"
                " is allowed: this checkpoint does not bear it, export it with --precision fp32"
            )
        return
    if not parity.scaled_difference <= FP32_TOLERANCE:
        raise ExportError(
            f"the fp32 graphs differ from the checkpoint by {parity.largest_difference:.1e} in a logit, and by"
            f" {parity.scaled_difference:.1e} of the largest beside one, at most {FP32_TOLERANCE:.0e} is allowed: this"
            " checkpoint has something that the exporter does not know"
        )
    for how, same in (("greedily", parity.greedy), ("with beams", parity.beams)):
        if same not in (None, 1.0):
            raise ExportError(
                f"{1 - same:.0%} of the rows decode {how} to other tokens than the checkpoint does: its generation"
                " config has something that the exporter does not know"
            )
