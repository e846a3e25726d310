"""What a core is better used for: a replica of its own, or a thread of one replica for all cores.

    python -m loadtests.threads [--runs 3] [--folder runs/peers]

Output tokens per second over HTTP of a translation model of opus-mt's size in int8, 32 callers; each run starts both.
"""

import argparse
import os
from pathlib import Path

from loadtests.bars import COLUMNS, Measured, markdown, of_runs
from loadtests.client import Load
from loadtests.peers.material import Material, prepare
from loadtests.peers.traffic import ROUTE, closed_loop_alone, draw
from loadtests.peers.translation import ROUNDS

CALLERS = 32


def compare(folder: Path, runs: int, rounds: int) -> Measured:
    """A line without a bar."""
    material, cores = prepare(folder, ["int8"]), os.cpu_count() or 1
    replicas, threads, client = [], [], []
    for run in range(runs):
        narrow, tokens = _load(material, cores, 1, rounds, seed=run)
        wide, _ = _load(material, 1, cores, rounds, seed=run)
        replicas.append(tokens / narrow.wall_s)
        threads.append(tokens / wide.wall_s)
        client.append(narrow.client_cores)
    what = f"translation int8, {CALLERS} callers, {cores} replicas of one thread"
    return of_runs(what, replicas, threads, "tokens/s", f"one replica of {cores} threads", bar=None, client=client)


def _load(material: Material, replicas: int, threads: int, rounds: int, *, seed: int) -> tuple[Load, int]:
    """One load and its output tokens."""
    asked = draw(material.checkpoint / "tokenizer.json", CALLERS * rounds, seed=seed)
    load = closed_loop_alone(
        material.folder,
        material.bundle("int8"),
        ROUTE,
        [one.body() for one in asked],
        callers=CALLERS,
        replicas=replicas,
        threads=threads,
    )
    return load, sum(one.output_tokens for one in asked)


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("runs/peers"), help="for the model and the logs")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    print(markdown(COLUMNS, [compare(options.folder, options.runs, ROUNDS).cells()]))


if __name__ == "__main__":
    main()
