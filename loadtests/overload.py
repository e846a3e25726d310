"""What four times the capacity does to a service, and what a second replica brings, with a model of real size on Ray.

    python -m loadtests.overload [--runs 3] [--seconds 40] [--folder runs/peers]

The model is of opus-mt's size in int8, one thread for each replica. The peak is what callers get who wait for their
answers; then four times as many requests come at random, answered or not. The client runs on the same machine.
"""

import argparse
import os
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from loadtests.bars import COLUMNS, Measured, hardware, markdown, of_runs
from loadtests.client import Told, closed_loop, for_seconds, overload, post
from loadtests.peers.material import Material, prepare
from loadtests.peers.traffic import ROUTE, draw, served
from models.load import Loaded, load
from models.offline import answer_all
from tests.serving import Service

CALLERS = 32
"""For each replica: as many as it has slots."""
TIMES = 4
WAITING_ROWS = 64
TEXTS = 640
WARM_SHARE = 0.25
"""Of a run that does not count: requests fill the queue, memory what it keeps."""
GOODPUT_BAR, REFUSED_BAR_S, MEMORY_BAR, SECOND_BAR = 0.95, 0.05, 1.02, 1.7


def overloaded(material: Material, runs: int, seconds: float) -> Iterator[Measured]:
    """Goodput, refusals, errors and memory at four times what one replica can do."""
    texts = draw(material.checkpoint / "tokenizer.json", TEXTS, seed=0)
    limits = {"max_waiting_rows": WAITING_ROWS}
    goodput, peaks, refused_s, clean, memory, next_s, client = [], [], [], [], [], [], []
    with served(material.folder, material.bundle("int8"), "ray", replicas=1, limits=limits) as service:
        url = service.url + ROUTE
        requests = [post(url, text.body()) for text in texts]
        for_seconds(url, requests, callers=CALLERS, seconds=seconds * WARM_SHARE)
        for run in range(runs):
            peak = for_seconds(url, requests, callers=CALLERS + WAITING_ROWS // 2, seconds=seconds / 2)
            before = _bytes(service)
            told = overload(url, requests, per_s=TIMES * peak.per_s, seconds=seconds, seed=run)
            memory.append(_bytes(service) / before)
            began = time.perf_counter()
            closed_loop(url, requests[:1], callers=1)
            next_s.append(time.perf_counter() - began)
            goodput.append(_goodput(told, seconds))
            peaks.append(peak.per_s)
            client.append(peak.client_cores)
            refused_s += [each.latency_s for each in told if each.status == 429]
            clean.append(sum(each.status in {200, 429} for each in told) / len(told))
    what = f"{TIMES} × capacity"
    yield of_runs(f"{what}, answers a second", goodput, peaks, "requests/s", "at peak", bar=GOODPUT_BAR, client=client)
    p99_s = float(np.quantile(refused_s, 0.99))
    yield Measured(
        f"{what}, p99 of {len(refused_s):,} refusals ÷ 50 ms",
        (p99_s / REFUSED_BAR_S,),
        1,
        at_least=False,
        ours=f"{1e3 * p99_s:.0f} ms",
        theirs=f"p50 {1e3 * statistics.median(refused_s):.0f} ms",
    )
    yield Measured(
        f"{what}, answered or refused ÷ all",
        tuple(clean),
        1,
        at_least=True,
        ours=f"{min(clean):.2%} at worst",
        theirs="-",
    )
    yield Measured(
        f"{what}, memory after ÷ before", tuple(memory), MEMORY_BAR, at_least=False, ours="all processes", theirs="-"
    )
    yield Measured(
        "the next caller afterwards", tuple(next_s), None, at_least=False, ours=f"{statistics.median(next_s):.2f} s",
        theirs="-",
    )  # fmt: skip


def _goodput(told: list[Told], seconds: float) -> float:
    """Answers a second, by when they came, while requests still came."""
    since_s = seconds * WARM_SHARE
    came = [each.due_s + each.latency_s for each in told if each.status == 200]
    return sum(since_s <= at_s < seconds for at_s in came) / (seconds - since_s)


def _bytes(service: Service) -> int:
    """Resident, of all processes."""
    root = psutil.Process(service.process.pid)
    return sum(each.memory_info().rss for each in (root, *root.children(recursive=True)))


def second(material: Material, runs: int, seconds: float) -> Measured:
    """Two replicas beside one, with as many callers for each."""
    texts = draw(material.checkpoint / "tokenizer.json", TEXTS, seed=0)
    found: dict[int, list[float]] = {1: [], 2: []}
    client = []
    for _ in range(runs):
        for replicas, per_s in found.items():
            with served(material.folder, material.bundle("int8"), "ray", replicas=replicas) as service:
                url = service.url + ROUTE
                requests = [post(url, text.body()) for text in texts]
                for_seconds(url, requests, callers=replicas * CALLERS, seconds=seconds * WARM_SHARE)
                load = for_seconds(url, requests, callers=replicas * CALLERS, seconds=seconds)
            per_s.append(load.per_s)
        client.append(load.client_cores)
    what = f"two replicas on {os.cpu_count()} cores"
    return of_runs(what, found[2], found[1], "requests/s", "one replica", bar=SECOND_BAR, client=client)


_loaded: list[Loaded] = []
"""The model of a process that has it alone."""


def _open(bundle: Path) -> None:
    _loaded.append(load(bundle, precision="int8", slots=CALLERS, threads=1))


def _turn(bodies: list[dict[str, Any]]) -> float:
    """Answers a second of the model alone."""
    (loaded,) = _loaded
    asked = [loaded.task.request_type.model_validate(body) for body in bodies]
    began = time.perf_counter()
    return len(list(answer_all(loaded, asked))) / (time.perf_counter() - began)


def alone(material: Material, runs: int) -> Measured:
    """The model alone in two processes beside one: without HTTP and Ray, so that the rest is the machine's."""
    bodies = [text.body() for text in draw(material.checkpoint / "tokenizer.json", TEXTS // 2, seed=0)]
    found: dict[int, list[float]] = {1: [], 2: []}
    fresh, bundle = get_context("spawn"), material.bundle("int8")
    with ExitStack() as stack:
        processes = [stack.enter_context(ProcessPoolExecutor(1, fresh, _open, (bundle,))) for _ in range(2)]
        for each in processes:
            each.submit(_turn, bodies[:CALLERS]).result()
        for _ in range(runs):
            for count, per_s in found.items():
                turns = [each.submit(_turn, bodies) for each in processes[:count]]
                per_s.append(sum(turn.result() for turn in turns))
    what = "the model alone, two processes"
    return of_runs(what, found[2], found[1], "requests/s", "one process", bar=None, client=[0.0] * runs)


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("overload", "second"))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=40.0, help="of load in each run")
    parser.add_argument("--folder", type=Path, default=Path("runs/peers"), help="for the model and the logs")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    material = prepare(options.folder, ["int8"])
    print(hardware(), flush=True)
    if options.what == "overload":
        lines = list(overloaded(material, options.runs, options.seconds))
    else:
        lines = [second(material, options.runs, options.seconds), alone(material, options.runs)]
    print(markdown(COLUMNS, [line.cells() for line in lines]))


if __name__ == "__main__":
    main()
