"""`make parity`: a tiny random checkpoint of every family, exported and held against the original, as one table."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from transformers.utils import logging

from models.bundle import Manifest, Precision
from models.export.card import PARITY_COLUMNS, parity_row
from models.export.write import export
from tests.export import encoders
from tests.export.checkpoints import FAMILIES
from tests.export.encoder_decoders import ENCODER_DECODERS
from tests.export.exported import made

COLUMNS = ("family", "task", "graphs", *PARITY_COLUMNS)


def main() -> None:
    """Print the table in Markdown, a line as soon as it is known."""
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    print(_line(COLUMNS), _line(["---"] * len(COLUMNS)), sep="\n")
    for family in (*FAMILIES, *ENCODER_DECODERS, *encoders.FAMILIES):
        for cells in _parity(family):
            print(_line(cells), flush=True)


def _parity(family: str) -> Iterator[tuple[str, ...]]:
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint, out = Path(scratch) / "checkpoint", Path(scratch) / "bundle"
        _, task, asked = made(family, checkpoint)
        bundle, parities = export(checkpoint, task, out, asked, precisions=_precisions(family))
    for parity in parities:
        yield family, task, graph_kind(bundle.manifest), *parity_row(parity)


def _precisions(family: str) -> tuple[Precision, ...]:
    """What the family has."""
    return ("fp32",) if family in encoders.PADDED else ("fp32", "fp16", "int8")


def graph_kind(manifest: Manifest) -> str:
    """Whether the graphs compute padded cells."""
    graphs = next(iter(manifest.precisions.values())).graphs
    if "step" in graphs:
        return "padding-free encoder, step"
    return "padding-free" if "unpad" in graphs["forward"].inputs else "padded"


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
