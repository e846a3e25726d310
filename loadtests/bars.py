"""What the project asks of its own speed, and how a measured value stands beside it in one table."""

import os
import platform
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

COLUMNS = ("what", "Heedful", "beside it", "ratio (least-most)", "bar", "verdict", "client, of a core")

HEEDFUL = "Heedful"


@dataclass(frozen=True, slots=True)
class Point:
    """So many callers, answers per second, and quantiles of the latency in seconds."""

    callers: int
    per_s: float
    p50_s: float
    p99_s: float


@dataclass(frozen=True, slots=True)
class Measured:
    """One line of the table.

    Args:
        what: is compared, in words.
        ratios: ours ÷ theirs, one for each of the interleaved runs.
        bar: what the median of the ratios must be: at least, or at most; None asks nothing of it.
        at_least: which of the two.
        ours: the median, with its unit.
        theirs: what stands beside it, likewise, and its name.
        client_cores: what sending the requests took, in cores; None where nothing was sent.
    """

    what: str
    ratios: tuple[float, ...]
    bar: float | None
    at_least: bool
    ours: str
    theirs: str
    client_cores: float | None = None

    @property
    def ratio(self) -> float:
        """The median."""
        return statistics.median(self.ratios)

    @property
    def is_passed(self) -> bool:
        """Whether the median stands on the right side of the bar, if there is one."""
        if self.bar is None:
            return True
        return self.ratio >= self.bar if self.at_least else self.ratio <= self.bar

    def cells(self) -> Sequence[str]:
        """As the table shows it."""
        client = "-" if self.client_cores is None else f"{self.client_cores:.0%}"
        bar = verdict = "-"
        if self.bar is not None:
            bar = f"{'≥' if self.at_least else '≤'} {self.bar:g}"
            verdict = "pass" if self.is_passed else f"short by {abs(1 - self.ratio / self.bar):.0%}"
        spread = f"{self.ratio:.2f} ({min(self.ratios):.2f}-{max(self.ratios):.2f})"
        return (self.what, self.ours, self.theirs, spread, bar, verdict, client)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "ratio": self.ratio, "is_passed": self.is_passed}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Measured":
        """What `plain` made."""
        kept = {name: plain[name] for name in cls.__dataclass_fields__}
        return cls(**{**kept, "ratios": tuple(plain["ratios"])})


def of_runs(
    what: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    unit: str,
    beside: str,
    *,
    bar: float | None,
    client: Sequence[float],
) -> Measured:
    """A line from throughputs of interleaved runs, which must reach the bar where there is one.

    Args:
        ours: of each run, in `unit`.
        theirs: of the same runs.
        beside: the name of what is compared with.
        client: cores that sending took in each run.
    """
    return Measured(
        what,
        tuple(mine / other for mine, other in zip(ours, theirs, strict=True)),
        bar,
        at_least=True,
        ours=f"{statistics.median(ours):,.0f} {unit}",
        theirs=f"{statistics.median(theirs):,.0f} {unit}, {beside}",
        client_cores=statistics.median(client),
    )


def hardware() -> str:
    """The machine and what it runs, in a line."""
    names = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    named = re.search(r"^model name\s*: (.*)$", names, re.MULTILINE)
    processor = named[1] if named else platform.machine()
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores, {processor}; {system}"


def markdown(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table."""
    rows = [columns, ["---"] * len(columns), *lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
