"""What a bundle's graphs say of given tokens, without decoding: for parity with the checkpoint, and for tests.

It needs no torch, so that an embedded bundle is held against committed reference outputs where torch is not installed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle import Bundle, Precision
from models.encoder import forward
from models.packing import WIDTH_MULTIPLE
from models.session import Session, open_session
from models.task import Array, Row, Tokens

__all__ = ["forward", "replay", "teacher_forced"]


def replay(
    bundle: Bundle,
    precision: Precision,
    rows: Sequence[Row],
    targets: Sequence[Tokens | None],
    *,
    lean: bool = False,
) -> list[dict[str, Array]]:
    """What the graphs compute for rows that run side by side, named as their outputs; one graph is open at a time.

    Args:
        targets: for an encoder-decoder what its decoder is given, start token first; else None for each row.
        lean: see `models.session.open_session`.
    """
    given = [target for target in targets if target is not None]
    if not given:
        return forward(open_session(bundle, precision, "forward", lean=lean), rows)
    encoded = forward(open_session(bundle, precision, "encoder", lean=lean), rows)
    logits = teacher_forced(encoded, open_session(bundle, precision, "step", lean=lean), given)
    return [{"logits": row} for row in logits]


def teacher_forced(encoded: Sequence[Mapping[str, Array]], step: Session, targets: Sequence[Tokens]) -> list[Array]:
    """Logits float32 [len(target), vocabulary] of each row when the decoder is given `target` whatever it says itself.

    Rows run side by side, each at its own position: row i waits i steps before it starts.

    Args:
        encoded: what `forward` gives for each row with the encoder's graph.
    """
    lengths = np.array([len(outputs["cross"]) for outputs in encoded], np.int32)
    longest = {"past_": max(len(target) for target in targets)}
    longest["cross_"] = source_length = -(-lengths.max() // WIDTH_MULTIPLE) * WIDTH_MULTIPLE
    feeds: dict[str, NDArray[Any]] = {
        "source_lengths": lengths,
        "source_total": lengths.max(),
        "source_last": np.stack([outputs["cross"][-1] for outputs in encoded]),
    }
    for name, spec in step.inputs.items():
        kind = next((kind for kind in longest if name.startswith(kind)), None)
        if kind is not None:
            heads, width = int(spec.shape[1]), int(spec.shape[3])
            feeds[name] = np.zeros((len(encoded), heads, longest[kind], width), spec.dtype)
    for index, name in enumerate(name for name in step.inputs if name.startswith("cross_")):
        for row, outputs in enumerate(encoded):
            feeds[name][row, :, : lengths[row]] = outputs["cross"][:, index].swapaxes(0, 1)
    for name in encoded[0].keys() - {"cross"}:
        first = encoded[0][name]
        feeds[name] = np.zeros((len(encoded), source_length, *first.shape[1:]), first.dtype)
        for row, outputs in enumerate(encoded):
            feeds[name][row, : lengths[row]] = outputs[name]
    logits: list[list[Array]] = [[] for _ in encoded]
    for time in range(max(len(target) + row for row, target in enumerate(targets))):
        positions = [min(max(time - row, 0), len(target) - 1) for row, target in enumerate(targets)]
        feeds["tokens"] = np.array([target[at] for target, at in zip(targets, positions, strict=True)], np.int64)
        feeds["positions"] = np.array(positions, np.int32)
        feeds["total"] = feeds["positions"].max() + 1
        outputs = step.run({name: np.asarray(feeds[name], spec.dtype) for name, spec in step.inputs.items()})
        feeds |= {
            name.removeprefix("present_"): array for name, array in outputs.items() if name.startswith("present_")
        }
        for row, target in enumerate(targets):
            if len(logits[row]) < len(target) and time >= row:
                logits[row].append(outputs["logits"][row].copy())  # a view would keep those of all rows
    return [np.stack(row) for row in logits]
