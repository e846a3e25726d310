"""What a real service did under a wave, as numbers, a line of a table and a picture: pure, so tests need no service."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from loadtests.fleets import median_p95_s, windows
from loadtests.simulation import Outcome

ANSWERED, REFUSED, LOST = "answered", "refused", "lost"
"""What becomes of a request; lost is whatever is neither an answer nor a refusal with `Retry-After`."""

COLUMNS = (
    "policy", "replicas: before → most → at the end", "the second answers after", "p95, calm", "p95, wave",
    "p95, worst 5 s", "refused", "lost", "replicas × time",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wave:
    """How many requests come each second: few, then for a while many, then few again."""

    calm_per_s: float
    high_per_s: float
    calm_s: float
    high_s: float
    after_s: float

    @property
    def span_s(self) -> tuple[float, float]:
        """From when to when many come."""
        return self.calm_s, self.calm_s + self.high_s

    @property
    def until_s(self) -> float:
        """When it is over."""
        return self.calm_s + self.high_s + self.after_s

    def per_s(self, at_s: float) -> float | None:
        """None when it is over."""
        if at_s >= self.until_s:
            return None
        began_s, ended_s = self.span_s
        return self.high_per_s if began_s <= at_s < ended_s else self.calm_per_s


@dataclass(frozen=True, slots=True)
class Seen:
    """A service under a wave, in seconds since its first request.

    Args:
        outcomes: of every request, in the order in which they were sent.
        ready: how many replicas could answer at a time.
    """

    wave: Wave
    outcomes: Sequence[Outcome]
    ready: Sequence[tuple[float, int]]

    @classmethod
    def of(cls, wave: Wave, told: Iterable[Sequence[str]], ready: Iterable[tuple[float, int]]) -> "Seen":
        """By the clock: requests as they were told, when sent, for how long, and what became of them; and replicas.

        Raises:
            ValueError: there was no request.
        """
        requests = sorted((float(sent_s), float(took_s), became) for sent_s, took_s, became in told)
        if not requests:
            raise ValueError("no request was sent")
        first_s = requests[0][0]
        outcomes = [
            Outcome(sent_s - first_s, sent_s - first_s + took_s if became == ANSWERED else None, became == REFUSED)
            for sent_s, took_s, became in requests
        ]
        return cls(wave, outcomes, [(at_s - first_s, count) for at_s, count in ready if at_s - first_s < wave.until_s])

    @classmethod
    def read(cls, wave: Wave, told: Path, ready: Iterable[tuple[float, int]]) -> "Seen":
        """From the file that the users wrote."""
        with told.open(encoding="utf-8", newline="") as lines:
            return cls.of(wave, csv.reader(lines), ready)

    def windows(self) -> Iterator[tuple[float, float, float, float | None]]:
        """As `loadtests.fleets.windows`."""
        return windows(self.outcomes, self.wave.until_s)

    def replica_s(self) -> float:
        """Seconds of all ready replicas together, from the first request on."""
        changes = [*(max(0.0, at_s) for at_s, _ in self.ready[1:]), self.wave.until_s]
        counts = [count for _, count in self.ready]
        return sum(
            count * (end_s - began_s) for count, (began_s, end_s) in zip(counts, pairwise((0.0, *changes)), strict=True)
        )

    def cells(self) -> Sequence[str]:
        """A line of the table, but for the policy."""
        began_s, ended_s = self.wave.span_s
        seen = list(self.windows())
        before = [count for at_s, count in self.ready if at_s < began_s][-1]
        second_s = next((at_s for at_s, count in self.ready if count > 1), None)
        second = "-" if second_s is None else "before the wave"
        if second_s is not None and second_s >= began_s:
            second = f"{second_s - began_s:.0f} s"
        refused = sum(outcome.is_refused for outcome in self.outcomes)
        answered = sum(outcome.answered_s is not None for outcome in self.outcomes)
        return (
            f"{before} → {max(count for _, count in self.ready)} → {self.ready[-1][1]}",
            second,
            f"{1e3 * median_p95_s(seen, 0, began_s):,.0f} ms",
            f"{1e3 * median_p95_s(seen, began_s, ended_s):,.0f} ms",
            f"{1e3 * max(p95_s for *_, p95_s in seen if p95_s is not None):,.0f} ms",
            f"{refused / len(self.outcomes):.2%}",
            f"{len(self.outcomes) - answered - refused:,}",
            f"{self.replica_s():,.0f} s",
        )


def draw(seen: Mapping[str, Seen], out: Path) -> None:
    """Replicas, p95 and refusals over time, a line for each policy; equal runs give equal bytes."""
    mpl.rcParams["svg.hashsalt"] = "heedful"
    figure = Figure(figsize=(8.0, 6.0), layout="constrained")
    figure.suptitle("Measured: a wave of requests, and the replicas that come for it", fontsize=11)
    replicas, latency, refusals = figure.subplots(3, 1, sharex=True)
    for (name, each), style in zip(seen.items(), cycle(("-", "--", ":"))):
        found = list(each.windows())
        at_s = [window[0] for window in found]
        times = [*(moment for moment, _ in each.ready), each.wave.until_s]
        counts = [count for _, count in each.ready]
        replicas.step(times, [*counts, counts[-1]], style, where="post", label=name, linewidth=1.8)
        latency.plot(at_s, [np.nan if window[3] is None else 1e3 * window[3] for window in found], style)
        refusals.plot(at_s, [window[2] for window in found], style)
    latency.set_yscale("log")
    replicas.set_yticks(range(max(count for each in seen.values() for _, count in each.ready) + 1))
    for axes, label in zip((replicas, latency, refusals), ("replicas ready", "p95, ms", "refused/s"), strict=True):
        axes.set_ylabel(label)
        axes.grid(visible=True, alpha=0.25)
        for each in seen.values():
            axes.axvspan(*each.wave.span_s, alpha=0.08 / len(seen), color="black")
    for axes in (replicas, refusals):
        axes.set_ylim(bottom=0)
    refusals.set_xlabel("seconds")
    refusals.set_xlim(0, max(each.wave.until_s for each in seen.values()))
    replicas.legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(out, format="svg", metadata={"Date": None})
