"""The model card, README.md of a bundle: what the manifest and the measurements say, and what a person wrote."""

import re
from collections.abc import Mapping, Sequence

from models.bundle import File, Manifest
from models.export.errors import ExportError
from models.export.parity import Parity
from models.export.recipe import Card, Operators

_PARITY = """\
Largest difference of a logit, error relative to the spread of the logits, how often the same choice is the likeliest,
and how many rows decode to the same tokens, greedily and with beams."""

PARITY_COLUMNS = ("precision", "largest difference", "relative error", "same choice", "greedy same", "beams same")


def parity_row(parity: Parity) -> tuple[str, ...]:
    """Text for each of `PARITY_COLUMNS`."""
    return (
        parity.precision,
        f"{parity.largest_difference:.1e}",
        f"{parity.relative_error:.1e}",
        f"{parity.agreement:.1%}",
        *("" if same is None else f"{same:.0%}" for same in (parity.greedy, parity.beams)),
    )


_OPERATORS: Mapping[Operators, str] = {
    "onnxruntime": "ONNX Runtime's own where they are faster",
    "standard": "none but those of ONNX itself",
}


_SECTION = re.compile(r"\n\n## (?=(?:Data|Quality|Parity with the checkpoint|What it cannot do)(?:\n|$))")
"""Before the title of a section that `model_card` writes; the texts of a recipe may have headings too."""


def model_card(
    manifest: Manifest, card: Card, architecture: str, operators: Operators, parities: Sequence[Parity]
) -> str:
    """Markdown."""
    limits, said = manifest.limits, _said(manifest)
    sections = [
        f"# {manifest.name}",
        card.summary,
        _table(
            ("", ""),
            [
                ("Task", manifest.task),
                ("Architecture", architecture),
                ("Graphs", _layout(manifest)),
                ("Operators", _OPERATORS[operators]),
                ("Parameters", f"{manifest.parameters:,}"),
                ("Precision and size", ", ".join(_size(manifest, name) for name in manifest.precisions)),
                *said.items(),
                ("Version", manifest.version),
                *([("Shortlist", _shortlist(manifest.shortlist))] if manifest.shortlist else []),
                ("Limits", f"{limits.max_tokens} input tokens, {limits.max_new_tokens} new tokens for one row"),
                ("Made by", manifest.created_by),
            ],
        ),
        "## Data",
        card.data.strip(),
        "## Quality",
        _quality(manifest, card),
        "## Parity with the checkpoint",
        _PARITY,
        _table(PARITY_COLUMNS, [parity_row(parity) for parity in parities]),
        "## What it cannot do",
        card.failures.strip(),
    ]
    return "\n\n".join(section.strip() for section in sections if section.strip()) + "\n"


def revised_card(existing: str, manifest: Manifest, card: Card) -> str:
    """An existing card with summary, languages, licence, source, data, quality and failures as they are now.

    Raises:
        ExportError: it is no card that `model_card` wrote.
    """
    bodies = {"Data": card.data, "Quality": _quality(manifest, card), "What it cannot do": card.failures}
    head, *sections = _SECTION.split(existing.rstrip())
    blocks, said = head.split("\n\n"), _said(manifest)
    rows = [(line.split(" | ", 1)[0].removeprefix("| "), line) for line in blocks[-1].split("\n")]
    parts = [section.partition("\n\n")[::2] for section in sections]
    if missing := {*said, *bodies} - {name for name, _ in (*rows, *parts)}:
        raise ExportError(f"this model card was not written by an export, it lacks {', '.join(sorted(missing))}")
    table = "\n".join(_line((name, said[name])) if name in said else line for name, line in rows)
    head = "\n\n".join(block for block in (blocks[0], card.summary.strip(), table) if block)
    bodied = (f"{name}\n\n{bodies.get(name, body).strip()}".rstrip() for name, body in parts)
    return "\n\n## ".join([head, *bodied]) + "\n"


def _said(manifest: Manifest) -> dict[str, str]:
    """Rows of the first table that a recipe says, and weights do not change."""
    source, target = (", ".join(languages) for languages in (manifest.languages.source, manifest.languages.target))
    languages = f"{source} to {target}" if target else source
    return {
        "Languages": languages or "none",
        "Licence of the weights": manifest.licence,
        "Source": manifest.source,
    }


def _quality(manifest: Manifest, card: Card) -> str:
    if not manifest.quality:
        return f"Not measured.\n\n{card.comparison}".strip()
    rows = [(item.metric, f"{item.value:g}", item.dataset, f"`{item.command}`") for item in manifest.quality]
    return f"{_table(('metric', 'value', 'data', 'command'), rows)}\n\n{card.comparison.strip()}".strip()


def _layout(manifest: Manifest) -> str:
    names = {
        name for graphs in manifest.precisions.values() for graph in graphs.graphs.values() for name in graph.inputs
    }
    if "padded_tokens" in names and "lengths" not in names:
        return "padded: rows of one length alone, since this family reads what stands behind a row; float32 only"
    if "padded_tokens" in names:
        return "padded: rows of similar lengths are filled up to the longest; float32 only"
    return "padding-free: rows of any lengths stand side by side"


def _shortlist(file: File) -> str:
    return f"a row writes words that are likely for its source alone; {file.bytes / 1e6:.1f} MB"


def _size(manifest: Manifest, name: str) -> str:
    graphs = next(graphs for precision, graphs in manifest.precisions.items() if precision == name)
    return f"{name} {sum(file.bytes for file in graphs.files()) / 1e6:.1f} MB"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(_line(cells) for cells in (head, ["---"] * len(head), *rows))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
