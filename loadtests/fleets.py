"""Fleets of 1, 10 and 100 simulated replicas under a spike, with the service's autoscaling: a table and a picture."""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from loadtests.bars import markdown
from loadtests.shapes import spike
from loadtests.simulated import Costs, Events, Machine
from loadtests.simulation import Asked, Group, Outcome, Scaling, closed_loop, open_loop
from service.admission import Limits
from service.autoscaling import BacklogPolicy
from service.serve_config import REPORT_INTERVAL_S, REPORT_MEAN_S
from service.settings import Autoscaling

FLEETS = (1, 10, 100)
SPIKE_S = 180.0
WAVE_S = (0.4 * SPIKE_S, 0.6 * SPIKE_S)
CALM_SHARE, WAVE_SHARE = 0.6, 1.6
"""Of the capacity that a fleet starts with."""
WAITING_S = 5.0
"""Of work that may wait in a replica before requests are refused."""
START_S = 10.0
"""Until a new replica answers; a service on Ray takes 9.5 s to its first answer (`loadtests.footprint`)."""
REST_S = 60.0
"""For what is still inside at the end."""
WINDOW_S = 5.0
SATURATING = 64
"""Callers, twice as many as there are slots."""


@dataclass(frozen=True, slots=True)
class Wave:
    """A fleet under a spike.

    Args:
        replicas: at the start.
        per_s: requests that one replica answers at most.
    """

    replicas: int
    per_s: float
    group: Group

    def windows(self) -> Iterator[tuple[float, float, float, float | None]]:
        """Of the time in which requests come."""
        return windows(self.group.outcomes, SPIKE_S)

    def replica_s(self) -> float:
        """Seconds of all replicas together, those on their way counted too."""
        counts = [each for each in self.group.counts if each.at_s < SPIKE_S]
        ends = [*(each.at_s for each in counts[1:]), SPIKE_S]
        return sum(max(each.ready, each.target) * (end - each.at_s) for each, end in zip(counts, ends, strict=True))

    def cells(self) -> Sequence[str]:
        """A line of the table."""
        began_s, ended_s = WAVE_S
        seen = list(self.windows())
        calm = median_p95_s(seen, 0, began_s)
        wave = median_p95_s(seen, began_s, ended_s)
        up_s = next((each.at_s for each in self.group.counts if each.target > self.replicas), None)
        over = [at_s for at_s, _, refused, p95_s in seen if at_s > began_s and (refused or (p95_s or 0) > 2 * calm)]
        refused = sum(outcome.is_refused for outcome in self.group.outcomes)
        return (
            str(self.replicas),
            f"{CALM_SHARE * self.per_s * self.replicas:,.0f} → {WAVE_SHARE * self.per_s * self.replicas:,.0f}",
            "-" if up_s is None else f"{up_s - began_s:.1f} s",
            str(max(each.ready for each in self.group.counts)),
            f"{1e3 * calm:,.0f} ms",
            f"{1e3 * wave:,.0f} ms",
            f"{refused / len(self.group.outcomes):.2%}",
            f"{max(over, default=began_s) + WINDOW_S / 2 - began_s:.0f} s",
        )


def windows(outcomes: Sequence[Outcome], until_s: float) -> Iterator[tuple[float, float, float, float | None]]:
    """Of each window its middle, requests that came and were refused per second, and p95 of the answered ones.

    Args:
        outcomes: in the order in which the requests came.
    """
    edges = np.arange(0.0, until_s + WINDOW_S / 2, WINDOW_S)
    at = np.searchsorted(np.array([outcome.asked_s for outcome in outcomes]), edges)
    for index, edge in enumerate(edges[:-1]):
        some = outcomes[at[index] : at[index + 1]]
        refused = sum(outcome.is_refused for outcome in some)
        answered = [outcome.latency_s for outcome in some if outcome.answered_s is not None]
        p95_s = float(np.quantile(answered, 0.95)) if answered else None
        yield float(edge) + WINDOW_S / 2, len(some) / WINDOW_S, refused / WINDOW_S, p95_s


def median_p95_s(seen: Iterable[tuple[float, float, float, float | None]], since_s: float, until_s: float) -> float:
    """The median over the windows with answers whose middles lie between."""
    return statistics.median(p95_s for at_s, _, _, p95_s in seen if since_s <= at_s < until_s and p95_s is not None)


def capacity_per_s(costs: Costs, asked: Sequence[Asked]) -> float:
    """Requests per second that one replica answers when there are always more than it can run."""
    events = Events()
    group = Group(events, Machine(costs, Limits(10**6, 10**9)), replicas=1)
    closed_loop(group, events, asked, callers=SATURATING)
    events.run(1e6)
    return len(asked) / max(outcome.answered_s or 0.0 for outcome in group.outcomes)


def by_backlog(least: int, most: int) -> Scaling:
    """The service's policy with its defaults."""
    defaults = Autoscaling(max_replicas=1)
    policy = BacklogPolicy(
        backlog_s=defaults.backlog_s, down_after_s=defaults.down_after_s, zero_after_s=defaults.zero_after_s
    )
    return Scaling(policy, least, most, START_S, REPORT_INTERVAL_S, REPORT_MEAN_S)


def wave(costs: Costs, asked: Sequence[Asked], replicas: int, per_s: float, scaling: Scaling) -> Wave:
    """A fleet of so many replicas, calm, under a spike, and calm again."""
    waiting = round(WAITING_S * per_s)
    events = Events()
    group = Group(events, Machine(costs, Limits(waiting, 10**9)), replicas, scaling)
    rng = np.random.default_rng(replicas)
    at_s = _arrivals(rng, CALM_SHARE * per_s * replicas, WAVE_SHARE * per_s * replicas)
    open_loop(group, events, [asked[index] for index in rng.integers(len(asked), size=len(at_s))], at_s)
    events.run(SPIKE_S + REST_S)
    return Wave(replicas, per_s, group)


def _arrivals(rng: np.random.Generator, calm_per_s: float, wave_per_s: float) -> list[float]:
    """Times at random (Poisson), of a rate that follows `loadtests.shapes.spike`."""
    low, high = spike(0.0), spike(0.5)
    at_s = np.cumsum(rng.exponential(1 / wave_per_s, round(1.5 * wave_per_s * SPIKE_S)))
    at_s = at_s[at_s < SPIKE_S]
    height = np.array([(spike(each / SPIKE_S) - low) / (high - low) for each in at_s.tolist()])
    kept = rng.random(len(at_s)) * wave_per_s < calm_per_s + height * (wave_per_s - calm_per_s)
    return [float(each) for each in at_s[kept]]


def show(costs: Costs, asked: Sequence[Asked], docs: Path | None) -> None:
    """Print the table, and draw the picture where it is asked for."""
    per_s = capacity_per_s(costs, asked)
    print(f"One replica answers at most {per_s:.1f} requests/s.\n")
    waves = [wave(costs, asked, count, per_s, by_backlog(count, 2 * count)) for count in FLEETS]
    columns = (
        "replicas at first", "requests/s, calm → wave", "scaling begins after", "most replicas", "p95, calm",
        "p95, wave", "refused", "as before after",
    )  # fmt: skip
    print(markdown(columns, [each.cells() for each in waves]))
    if docs is not None:
        titles = [f"{count} replica{'s' if count > 1 else ''} at first" for count in FLEETS]
        draw(dict(zip(titles, waves, strict=True)), docs / "capacity.svg")


def draw(waves: Mapping[str, Wave], out: Path) -> None:
    """For each fleet, by its title, what came and was refused, p95, and replicas; equal waves give equal bytes."""
    mpl.rcParams["svg.hashsalt"] = "heedful"
    figure = Figure(figsize=(10.0, 6.0), layout="constrained")
    figure.suptitle("Simulated: a spike, and the replicas that come for it", fontsize=11)
    grid = figure.subplots(3, len(waves), sharex=True, squeeze=False)
    for column, (title, each) in enumerate(waves.items()):
        came, latency, replicas = (grid[row][column] for row in range(3))
        seen = list(each.windows())
        at_s = [window[0] for window in seen]
        came.plot(at_s, [window[1] for window in seen], label="came")
        came.plot(at_s, [window[2] for window in seen], label="refused")
        latency.plot(at_s, [np.nan if window[3] is None else 1e3 * window[3] for window in seen])
        latency.set_yscale("log")
        counts = [count for count in each.group.counts if count.at_s < SPIKE_S]
        times = [*(count.at_s for count in counts), SPIKE_S]
        for name in ("target", "ready"):
            numbers = [asdict(count)[name] for count in counts]
            replicas.step(times, [*numbers, numbers[-1]], where="post", label=name)
        came.set_title(title, fontsize=10)
        replicas.set_xlabel("seconds")
        for axes in (came, replicas):
            axes.set_ylim(bottom=0)
        for axes in (came, latency, replicas):
            axes.axvspan(*WAVE_S, alpha=0.08, color="black")
            axes.grid(visible=True, alpha=0.25)
    for axes, label in zip(grid[:, 0], ("requests/s", "p95, ms", "replicas"), strict=True):
        axes.set_ylabel(label)
    for axes in (grid[0][0], grid[2][0]):
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(out, format="svg", metadata={"Date": None})
