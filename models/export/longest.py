"""Whether a bundle's graphs read and write as much as its limits allow: for `heedful check`, without torch."""

from bisect import bisect
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from models.bundle import Bundle, Precision
from models.encoder import forward
from models.errors import BundleError, DeviceLost
from models.load import example_of, task_type
from models.packing import WIDTH_MULTIPLE
from models.session import Session, open_session
from models.task import Row, Task


def check_limits(bundle: Bundle, precision: Precision) -> None:
    """Run the longest row that the limits allow, and the last step that they allow of a model that writes.

    Graphs have tables of positions, and no hash vouches for the manifest's limits. A GPU reads past the end of a table
    without an error, so that there this shows less.

    Raises:
        BundleError: a limit is more than the graphs hold, or see `models.load.example_of`.
    """
    make = cast("Callable[[Bundle], Task[Any, Any]]", task_type(bundle))
    row = next(make(bundle).solve(example_of(bundle)))[0]
    limits, generation = bundle.manifest.limits, bundle.manifest.generation
    roles, place = bundle.graphs(precision).graphs, f"{bundle.folder}: the {precision} graphs"
    reader = open_session(bundle, precision, "forward" if "forward" in roles else "encoder")
    read = _most(limits.max_tokens, len(row.tokens), partial(_read, reader, row))
    if read < limits.max_tokens:
        raise BundleError(f"{place} read at most {read} tokens, limits.max_tokens is {limits.max_tokens}")
    if "step" in roles and generation is not None:
        step = open_session(bundle, precision, "step")
        written = _most(limits.max_new_tokens, 1, partial(_write, step, generation.decoder_start_token_id))
        if written < limits.max_new_tokens:
            raise BundleError(
                f"{place} write at most {written} tokens, limits.max_new_tokens is {limits.max_new_tokens}"
            )


def _most(wanted: int, known: int, run: Callable[[int], None]) -> int:
    """The largest length up to `wanted` that the graphs take; `known` is one that they do."""

    def fails(length: int) -> bool:
        try:
            run(length)
        except DeviceLost:
            raise
        except Exception:  # noqa: BLE001 - ONNX Runtime's exceptions have no common base class but this
            return True
        return False

    return known + bisect(range(known + 1, wanted), False, key=fails) if fails(wanted) else wanted


def _read(reader: Session, row: Row, length: int) -> None:
    """The row with the token in its middle repeated: some models count those that end a text."""
    times = np.ones(len(row.tokens), np.int64)
    times[len(times) // 2] += length - len(times)
    segments = None if row.segments is None else np.repeat(row.segments, times)
    forward(reader, [replace(row, tokens=np.repeat(row.tokens, times), segments=segments)])


def _write(step: Session, start: int, length: int) -> None:
    """The step in which a row gets its token number `length`; what it has read of its source and written is zeros."""
    sizes = {"rows": 1, "source_length": WIDTH_MULTIPLE, "target_length": length}
    feeds: dict[str, NDArray[Any]] = {
        name: np.zeros([sizes[size] if isinstance(size, str) else size for size in spec.shape], spec.dtype)
        for name, spec in step.inputs.items()
    }
    for name, value in (("tokens", start), ("positions", length - 1), ("total", length)):
        feeds[name][...] = value
    for name in ("source_lengths", "source_total"):
        feeds[name][...] = 1
    step.run(feeds)
