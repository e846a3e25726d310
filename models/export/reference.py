"""What a checkpoint answers, in a small file: a test holds the bundle against it where torch is not installed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.task import Row

TOP_LOGITS = 16


def save_reference(path: Path, rows: Sequence[Row], expected: Sequence[Mapping[str, NDArray[Any]]]) -> None:
    """Write `ROW/tokens`, `ROW/segments` and, for each output, `ROW/NAME`.

    Of `logits`, [length, vocabulary], only the likeliest are kept: `ROW/logits_ids` and `ROW/logits`, [length, 16].
    """
    arrays: dict[str, NDArray[Any]] = {}
    for index, (row, outputs) in enumerate(zip(rows, expected, strict=True)):
        arrays[f"{index}/tokens"] = row.tokens.astype(np.int32)
        if row.segments is not None:
            arrays[f"{index}/segments"] = row.segments.astype(np.int32)
        for name, array in outputs.items():
            if name == "logits":
                likeliest = np.argsort(-array, -1, kind="stable")[:, :TOP_LOGITS]
                arrays[f"{index}/logits_ids"] = likeliest.astype(np.int32)
                arrays[f"{index}/logits"] = np.take_along_axis(array, likeliest, -1)
            else:
                arrays[f"{index}/{name}"] = array.astype(np.int32) if array.dtype == np.int64 else array
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, allow_pickle=False, **arrays)


def load_reference(path: Path) -> tuple[list[Row], list[dict[str, NDArray[Any]]]]:
    """The rows, and for each the arrays that `save_reference` wrote for it."""
    with np.load(path, allow_pickle=False) as archive:
        stored = {name: archive[name] for name in archive.files}
    count = 1 + max(int(name.split("/")[0]) for name in stored)
    answers = [
        {name.split("/")[1]: array for name, array in stored.items() if name.startswith(f"{index}/")}
        for index in range(count)
    ]
    rows = [Row(_ids(answer.pop("tokens")), _ids(answer.pop("segments", None))) for answer in answers]
    return rows, answers


def _ids(array: NDArray[Any] | None) -> Any:
    return None if array is None else array.astype(np.int64)
