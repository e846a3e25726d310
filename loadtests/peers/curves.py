"""Throughput and latency of Heedful and of its peers as servers, system after system and round after round.

    python -m loadtests.peers.curves TASK [--rounds 3] [--seconds 8] [--only NAME…] [--folder runs/peers]

Every system answers the same requests over HTTP, from callers who each wait for their answer, and then from callers who
come at random (Poisson). Their rate is the same for all: half of what the better of the two FastAPI services answers to
32 callers; a system that answers fewer than come is left out of that. A latency in the open loop counts from the moment
at which the request was due.
"""

import argparse
import os
import signal
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path

from loadtests.bars import COLUMNS, HEEDFUL, Measured, Point, hardware, markdown, of_runs
from loadtests.client import Load, for_seconds, open_loop, post
from loadtests.peers.converted import convert
from loadtests.peers.material import prepare, question_answering_bundle
from loadtests.peers.systems import OWN_PYTHON, PEERS, System, available, heedful, heedful_body, running
from loadtests.peers.traffic import Asked, Question, draw, draw_questions

TASKS: Mapping[str, float] = {"translation": 0.7, "question-answering": 0.8}
"""By task, the bar: p99 in the open loop ÷ that of the best peer."""
CALLERS = (1, 8, 32)
ROUNDS, SECONDS = 3, 5.0
OPEN_LOOP_SHARE = 3
"""How many times longer the open loop runs than one closed loop does: a p99 needs requests."""
CALIBRATION = PEERS[:2]
START_S, STOP_S = 9, 4
"""Of a system, about, on two cores; for the estimate."""
TEXTS = 256


@dataclass(slots=True)
class Curve:
    """What one system did, an entry for each round."""

    system: str
    closed: dict[int, list[Load]] = field(default_factory=dict)
    open: list[Load] = field(default_factory=list)

    def points(self) -> list[Point]:
        """Medians of the rounds."""
        return [
            Point(
                callers,
                statistics.median(load.per_s for load in loads),
                statistics.median(load.quantile_s(0.5) for load in loads),
                statistics.median(load.quantile_s(0.99) for load in loads),
            )
            for callers, loads in self.closed.items()
        ]

    @property
    def open_p99_s(self) -> float:
        """Of the open loop, the median of the rounds."""
        return statistics.median(load.quantile_s(0.99) for load in self.open)


def estimate_s(rounds: int, seconds: float, systems: int) -> float:
    """How long a comparison takes, about."""
    each = START_S + STOP_S + seconds * (len(CALLERS) + 0.5 + OPEN_LOOP_SHARE)
    return rounds * systems * each + len(CALIBRATION) * (START_S + seconds)


class Comparison:
    """Heedful and peers on one task.

    Attributes:
        curves: Heedful's first; a peer that fails is taken out.
        rate: of the open loop, in requests per second; 0 until it is found.
    """

    def __init__(self, task: str, peers: Sequence[System], own: Path = OWN_PYTHON) -> None:
        self.task = task
        self._peers = {peer.name: peer for peer in peers}
        self._own = own
        self.curves = [Curve(name) for name in (HEEDFUL, *self._peers)]
        self.rate = 0.0

    def run(self, folder: Path, *, rounds: int, seconds: float) -> Iterator[str]:
        """Find the rate, then measure system after system, round after round.

        Yields:
            What has been done.
        """
        bundle, asked = _material(self.task, folder)
        for peer in CALIBRATION:
            with running(peer, self.task, folder, self._own) as url:
                load = for_seconds(url, [post(url, peer.body(one)) for one in asked], callers=32, seconds=seconds)
            self.rate = max(self.rate, load.per_s / 2)
        yield f"{self.task}: {self.rate:.1f} requests/s in the open loop"
        for round_ in range(1, rounds + 1):
            for curve in list(self.curves):
                peer_ = self._peers.get(curve.system)
                body = peer_.body if peer_ else heedful_body
                server = running(peer_, self.task, folder, self._own) if peer_ else heedful(self.task, folder, bundle)
                try:
                    with server as url:
                        self._measure(curve, url, [post(url, body(one)) for one in asked], round_, seconds)
                except Exception as error:
                    if peer_ is None:
                        raise
                    self.curves.remove(curve)
                    yield f"{curve.system} is left out, it failed: {error!r}"
                else:
                    yield f"{self.task}, round {round_} of {rounds}: {curve.system}"

    def _measure(self, curve: Curve, url: str, requests: Sequence[bytes], round_: int, seconds: float) -> None:
        for_seconds(url, requests, callers=CALLERS[-1], seconds=seconds / 2)
        for callers in CALLERS:
            load = for_seconds(url, requests, callers=callers, seconds=seconds)
            curve.closed.setdefault(callers, []).append(load)
        if load.per_s > self.rate:  # else the queue would only grow
            many = islice(cycle(requests), max(1, int(self.rate * seconds * OPEN_LOOP_SHARE)))
            curve.open.append(open_loop(url, many, per_s=self.rate, seed=round_))

    def bar(self) -> Measured:
        """The line of the open loop: our p99 beside that of the best peer, round by round."""
        ours, *others = (curve for curve in self.curves if len(curve.open) == len(self.curves[0].open))
        best = min(others, key=lambda curve: curve.open_p99_s)
        both = zip(ours.open, best.open, strict=True)
        return Measured(
            f"{self.task} int8, {self.rate:.1f} requests/s at random, p99",
            tuple(mine.quantile_s(0.99) / other.quantile_s(0.99) for mine, other in both),
            TASKS[self.task],
            at_least=False,
            ours=f"{1e3 * ours.open_p99_s:,.0f} ms",
            theirs=f"{1e3 * best.open_p99_s:,.0f} ms, {best.system}",
            client_cores=statistics.median(load.client_cores for load in ours.open),
        )

    def throughputs(self) -> Iterator[Measured]:
        """A line for each peer: answers per second at the most callers."""
        callers = CALLERS[-1]
        ours, *others = [(curve.system, curve.closed[callers]) for curve in self.curves]
        for system, loads in others:
            yield of_runs(
                f"{self.task} int8, {callers} callers",
                [load.per_s for load in ours[1]],
                [load.per_s for load in loads],
                "requests/s",
                system,
                bar=None,
                client=[load.client_cores for load in ours[1]],
            )

    def table(self) -> str:
        """Every system at every number of callers, as Markdown."""
        ours = {point.callers: point.per_s for point in self.curves[0].points()}
        lines = [
            (
                curve.system,
                str(point.callers),
                f"{point.per_s:,.1f}",
                f"{point.per_s / ours[point.callers]:.2f}",
                f"{1e3 * point.p50_s:,.0f} ms",
                f"{1e3 * point.p99_s:,.0f} ms",
            )
            for curve in self.curves
            for point in curve.points()
        ]
        return markdown(("system", "callers", "requests/s", "÷ Heedful", "p50", "p99"), lines)


def _material(task: str, folder: Path) -> tuple[Path, Sequence[Asked | Question]]:
    if task == "translation":
        material = prepare(folder, ["int8"])
        convert(material, "int8")
        return material.bundle("int8"), draw(material.checkpoint / "tokenizer.json", TEXTS, seed=0)
    bundle = question_answering_bundle(folder)
    return bundle, draw_questions(bundle / "tokenizer.json", TEXTS, seed=0)


def main() -> None:
    """Print a table and the bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of all systems")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each closed loop")
    parser.add_argument("--only", nargs="*", metavar="NAME", help=f"of {', '.join(peer.name for peer in PEERS)}")
    parser.add_argument("--folder", type=Path, default=Path("runs/peers"), help="for the models and the logs")
    parser.add_argument("--own-python", type=Path, default=OWN_PYTHON, help="what runs LitServe and BentoML")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    peers = [peer for peer in available(options.own_python) if not options.only or peer.name in options.only]
    print(f"{hardware()}; {os.cpu_count()} replicas or workers of one thread each")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that no server is left behind
    found = Comparison(options.task, peers, options.own_python)
    for told in found.run(options.folder, rounds=options.rounds, seconds=options.seconds):
        print(told, flush=True)
    print(found.table(), markdown(COLUMNS, [found.bar().cells()]), sep="\n\n")


if __name__ == "__main__":
    main()
