"""Measurements kept from run to run, and the table and the picture that are made of them."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtests.bars import COLUMNS, Measured, Point, hardware, markdown
from loadtests.picture import draw

BEGIN, END = "<!-- bench -->", "<!-- /bench -->"
PICTURE = "throughput.svg"

Curves = dict[str, dict[str, list[Point]]]
"""The points of each system by its name, for each task."""


class Results:
    """What has been measured so far.

    Args:
        path: a JSON file, which need not be there yet.
        order: names of parts as the table has them.
    """

    def __init__(self, path: Path, order: Sequence[str]) -> None:
        self._path, self._order = path, order
        self._kept: dict[str, Any] = {"parts": {}, "curves": {}}
        if path.exists():
            self._kept = json.loads(path.read_text(encoding="utf-8"))

    def keep(self, part: str, lines: Iterable[Measured], points: Curves, *, runs: int, share: float) -> None:
        """Put a part in the place of an earlier measurement.

        Args:
            points: of curves, for the picture.
            runs: interleaved ones.
            share: of the usual length of each.
        """
        self._kept["parts"][part] = {
            "hardware": hardware(),
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "runs": runs,
            "share": share,
            "lines": [line.plain() for line in lines],
        }
        for task, systems in points.items():
            plain = {name: [asdict(point) for point in found] for name, found in systems.items()}
            self._kept["curves"][task] = plain
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self._kept, indent=1), encoding="utf-8")

    @property
    def parts(self) -> Mapping[str, Any]:
        """By name, in their order."""
        return {name: self._kept["parts"][name] for name in self._order if name in self._kept["parts"]}

    def table(self) -> str:
        """All lines as Markdown, with the machines that they come from."""
        lines = [Measured.from_plain(line).cells() for part in self.parts.values() for line in part["lines"]]
        machines = sorted({part["hardware"] for part in self.parts.values()})
        counts = sorted({part["runs"] for part in self.parts.values()})
        cut = any(part["share"] < 1 for part in self.parts.values())
        told = f"{'; '.join(machines)}. Medians of {' or '.join(map(str, counts))} interleaved runs."
        return f"{told}{' Shortened runs: a trial, not a measurement.' if cut else ''}\n\n{markdown(COLUMNS, lines)}"

    def write(self, docs: Path) -> None:
        """Put table and picture into the documentation."""
        picture = self.draw(docs / PICTURE)
        shown = f"\n![Median latency over requests per second, a line for each system]({PICTURE})" if picture else ""
        put_between(docs / "performance.md", BEGIN, END, f"{self.table()}\n{shown}")

    def draw(self, out: Path) -> bool:
        """The picture; False where there are no curves."""
        if found := self._kept["curves"]:
            tasks = {
                task: {name: [Point(**point) for point in points] for name, points in systems.items()}
                for task, systems in found.items()
            }
            draw(tasks, out)
        return bool(found)


def put_between(page: Path, begin: str, end: str, text: str) -> None:
    """Put a text in the place of what stands between two marks of a page; the marks stay."""
    before, has_begin, rest = page.read_text(encoding="utf-8").partition(begin)
    _, has_end, after = rest.partition(end)
    if not has_begin or not has_end:
        sys.exit(f"{page} has no place between {begin} and {end}")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
