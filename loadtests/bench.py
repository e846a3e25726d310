"""One table of everything that the project asks of its own speed, with the bars beside it.

    python -m loadtests.bench [--only PART…] [--quick] [--runs 3] [--out runs/bench.json] [--docs docs]
        [--parallel TEXT]

Prints beforehand how long it will take. Every part is told as soon as it is measured and kept in the file of results,
so that parts may be run one by one: the table at the end has all that the file holds. With `--docs` the table goes
into docs/performance.md and the picture beside it. The machine should do nothing else meanwhile.
"""

import argparse
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from loadtests import mixed, overhead, threads
from loadtests.bars import Measured
from loadtests.peers import curves, generate, question_answering, translation
from loadtests.peers.curves import Comparison
from loadtests.peers.material import prepare, with_shortlist
from loadtests.peers.systems import OWN_PYTHON, PEERS, available
from loadtests.peers.translation import SETTINGS, SHORTLIST, Setting
from loadtests.results import Curves, Results

START_S = 18
"""To start and stop a service on Ray, about."""


@dataclass(frozen=True, slots=True)
class Options:
    """How much is measured.

    Args:
        runs: interleaved ones of each comparison, beside one that warms up.
        share: of the usual length of each.
        own_python: runs the peers that need an environment of their own.
        parallel: a text to learn a shortlist from.
    """

    folder: Path
    runs: int
    share: float
    own_python: Path
    parallel: Path | None

    def scaled(self, usual: float) -> float:
        """A length in seconds, or a count."""
        return usual * self.share


@dataclass(frozen=True, slots=True)
class Part:
    """What can be measured alone.

    Args:
        seconds: how long it takes on two cores, about.
        measure: its lines; it may leave points of curves for the picture.
    """

    what: str
    seconds: Callable[[Options], float]
    measure: Callable[[Options, Curves], Iterable[Measured]]


def _of_setting(setting: Setting, run_s: float, tries_s: float) -> Part:
    def measure(options: Options, _: Curves) -> Iterator[Measured]:
        rounds = max(1, round(options.scaled(setting.rounds)))
        yield from translation.compare(
            setting, prepare(options.folder, [setting.precision]), options.runs, rounds=rounds
        )

    return Part(f"{setting.name}, beside CTranslate2 in process", _in_turn(run_s, tries_s), measure)


def _shortlist(options: Options, _: Curves) -> Iterator[Measured]:
    if options.parallel is None:
        print("no --parallel text to learn a shortlist from: left out", file=sys.stderr)
        return
    material = prepare(options.folder, ["int8"])
    with_shortlist(material, options.parallel)
    rounds = max(1, round(options.scaled(SHORTLIST.rounds)))
    yield from translation.compare(SHORTLIST, material, options.runs, rounds=rounds, parallel=options.parallel)


def _steps(options: Options, _: Curves) -> Iterator[Measured]:
    """The bars among what `loadtests.steps` prints."""
    if options.parallel is None:
        print("no --parallel text for the steps: left out", file=sys.stderr)
        return
    command = ["-m", "loadtests.steps", "--parallel", str(options.parallel), "--runs", str(options.runs)]
    printed = subprocess.run([sys.executable, *command], check=True, stdout=subprocess.PIPE, text=True).stdout
    print(printed, file=sys.stderr)
    for what, median, least, most, bar in _BAR_OF_STEPS.findall(printed):
        ratios = (float(least), float(median), float(most))
        yield Measured(what, ratios, float(bar), at_least=False, ours=f"{float(median):.2f} ×", theirs="1")


_BAR_OF_STEPS = re.compile(r"^(A step of .*): ([\d.]+) \(([\d.]+)-([\d.]+)\), at most ([\d.]+)$", re.MULTILINE)


def _starts(starts: int, run_s: float) -> Callable[[Options], float]:
    return lambda options: starts * START_S + (options.runs + 1) * options.scaled(run_s)


def _in_turn(run_s: float, tries_s: float, starts: int = 1) -> Callable[[Options], float]:
    """Each run starts the service anew; before them every setting of the peer is tried once."""
    return lambda options: options.runs * (starts * START_S + options.scaled(run_s)) + options.scaled(tries_s)


def _generate(options: Options, _: Curves) -> Iterator[Measured]:
    yield from generate.compare(
        prepare(options.folder, ["fp32"]), options.runs, max(1, round(options.scaled(translation.ROUNDS / 2)))
    )


def _threads(options: Options, _: Curves) -> Iterator[Measured]:
    yield threads.compare(options.folder, options.runs, max(1, round(options.scaled(translation.ROUNDS))))


def _question_answering(options: Options, _: Curves) -> Iterable[Measured]:
    return question_answering.compare(options.folder, options.runs, int(options.scaled(question_answering.TEXTS)))


def _servers(task: str) -> Part:
    def seconds(options: Options) -> float:
        systems = 1 + len(available(options.own_python))
        return curves.estimate_s(options.runs, options.scaled(curves.SECONDS), systems)

    def measure(options: Options, points: Curves) -> Iterator[Measured]:
        peers = available(options.own_python)
        for peer in PEERS:
            if peer not in peers:
                print(f"{peer.name} is left out: `make peers` installs it", file=sys.stderr)
        found = Comparison(task, peers, options.own_python)
        for told in found.run(options.folder, rounds=options.runs, seconds=options.scaled(curves.SECONDS)):
            print(told, file=sys.stderr, flush=True)
        points[task] = {curve.system: curve.points() for curve in found.curves}
        yield from found.throughputs()
        yield found.bar()

    return Part(f"{task} beside peers as servers: closed loop, and open loop at half capacity", seconds, measure)


def _mixed(traffic: Callable[[Path], mixed.Traffic]) -> Callable[[Options, Curves], Iterable[Measured]]:
    return lambda options, _: mixed.measure(
        traffic(options.folder), options.folder, options.runs, options.scaled(mixed.SECONDS)
    )


def _echo(
    measure: Callable[[Path, int, float], Measured],
) -> Callable[[Options, Curves], Iterable[Measured]]:
    return lambda options, _: [measure(options.folder, options.runs, options.scaled(overhead.SECONDS))]


PARTS: Mapping[str, Part] = {
    "translation-int8": _of_setting(SETTINGS[0], 32, 40),
    "translation-int8-128": _of_setting(SETTINGS[1], 35, 50),
    "translation-int8-8": _of_setting(SETTINGS[2], 16, 20),
    "translation-fp32": _of_setting(SETTINGS[3], 90, 130),
    "translation-beams": _of_setting(SETTINGS[4], 35, 30),
    "translation-shortlist": Part(f"{SHORTLIST.name}, beside CTranslate2 in process", _in_turn(30, 40), _shortlist),
    "question-answering": Part(
        "question answering beside ONNX Runtime in process", _in_turn(50, 17, starts=2), _question_answering
    ),
    "steps": Part("a decoding step as rows and cache length grow", lambda options: 15 + 20 * options.runs, _steps),
    "generate": Part("translation fp32 beside transformers generate()", _in_turn(75, 50), _generate),
    "threads": Part(
        "replicas of one thread beside threads of one replica",
        lambda options: options.runs * 2 * (START_S + options.scaled(15)),
        _threads,
    ),
    "echo-ray": Part(
        "an echo on Ray beside Ray Serve's documented pattern",
        lambda options: options.runs * (2 * START_S + 2.4 * options.scaled(overhead.SECONDS)),
        _echo(overhead.on_ray),
    ),
    "echo-embedded": Part(
        "an echo in one process beside FastAPI on uvicorn",
        lambda options: options.runs * (6 + 2.4 * options.scaled(overhead.SECONDS)),
        _echo(overhead.embedded),
    ),
    "mixed-translation": Part(
        "short translations beside long ones; padding", _starts(1, 2 * mixed.SECONDS), _mixed(mixed.translation)
    ),
    "mixed-question-answering": Part(
        "short questions beside long texts; padding", _starts(1, 2 * mixed.SECONDS), _mixed(mixed.question_answering)
    ),
    "servers-translation": _servers("translation"),
    "servers-question-answering": _servers("question-answering"),
}


def run(names: Iterable[str], options: Options, results: Results) -> bool:
    """Measure parts; one that fails is told and the others go on. No part begins after twice the time told.

    Returns:
        Whether all were measured.
    """
    names = list(names)
    planned_s = {name: PARTS[name].seconds(options) for name in names}
    for name in names:
        print(f"{name}: {PARTS[name].what}, about {planned_s[name] / 60:.1f} min", file=sys.stderr)
    total_s = sum(planned_s.values())
    print(f"together about {total_s / 60:.0f} min, at most {2 * total_s / 60:.0f} min", file=sys.stderr, flush=True)
    began, complete = time.monotonic(), True
    for name in names:
        if time.monotonic() - began > 2 * total_s:
            print(f"{name} is left out: the time is over", file=sys.stderr, flush=True)
            complete = False
            continue
        part_began = time.monotonic()
        points: Curves = {}
        lines: list[Measured] = []
        try:
            for line in PARTS[name].measure(options, points):
                lines.append(line)
                print(f"| {' | '.join(line.cells())} |", file=sys.stderr, flush=True)
        except Exception as error:  # noqa: BLE001 - the other parts are worth their time whatever it was
            cause = error
            while isinstance(cause, ExceptionGroup):
                cause = cause.exceptions[0]
            print(f"{name} failed: {type(cause).__name__}: {cause}", file=sys.stderr, flush=True)
            complete = False
        if lines:
            results.keep(name, lines, points, runs=options.runs, share=options.share)
        print(f"{name} took {(time.monotonic() - part_began) / 60:.1f} min", file=sys.stderr, flush=True)
    return complete


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="one short run of each, to see that all works")
    parser.add_argument("--runs", type=int, default=3, help="counted runs of each comparison")
    parser.add_argument("--folder", type=Path, default=Path("runs/peers"), help="for the models and the logs")
    parser.add_argument("--own-python", type=Path, default=OWN_PYTHON, help="what runs LitServe and BentoML")
    parser.add_argument(
        "--parallel",
        type=Path,
        help="lines SOURCE<TAB>TRANSLATION, .xz or not, for shortlist and steps",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/bench.json"), help="the results, kept from run to run")
    parser.add_argument("--docs", type=Path, help="write table and picture there")
    chosen = parser.parse_args()
    runs, share = (1, 0.25) if chosen.quick else (chosen.runs, 1.0)
    options = Options(chosen.folder, runs, share, chosen.own_python, chosen.parallel)
    options.folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that no server is left behind
    results = Results(chosen.out, list(PARTS))
    complete = run(chosen.only, options, results)
    print(results.table())
    results.draw(chosen.out.with_suffix(".svg"))
    if chosen.docs:
        results.write(chosen.docs)
    sys.exit(0 if complete else 1)


if __name__ == "__main__":
    main()
