"""Capacity beyond this machine: a simulated cluster, checked against a real one, and then given a spike.

    python -m loadtests.simulate check [--folder runs/peers] [--out runs/simulation]
    python -m loadtests.simulate spike [--out runs/simulation] [--docs docs]
    python -m loadtests.simulate policies [--out runs/simulation] [--docs docs]

`check` measures what a model of opus-mt's size in int8 on one thread takes to encode and to step, then asks a real
`heedful serve --runtime embedded`, and the simulation, for the same at the same times. `spike` takes those step times
to 1, 10 and 100 replicas, which scale to twice as many; `policies` shows how Ray Serve's own policy would have scaled.
`--docs` gets the pictures.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from loadtests import client
from loadtests.bars import hardware, markdown
from loadtests.fleets import show
from loadtests.peers.material import Material, prepare
from loadtests.peers.traffic import ROUTE, draw, served
from loadtests.peers.traffic import Asked as Text
from loadtests.policies import compare
from loadtests.simulated import Costs, Events, Machine
from loadtests.simulation import Asked, Group, closed_loop, open_loop
from models.load import load
from models.task import Model, Row
from models.tasks.translation import TranslationRequest
from service.admission import Limits
from service.rows import Batch, Rows

CALLERS = 32
SHARES = (0.5, 0.8)
"""Of what 32 callers get, at which requests come at random."""
POISSON_S = 60.0
CLOSED_REQUESTS = 640
LONE_REQUESTS = 30
STEP_ROWS = (1, 2, 4, 8, 16, 24, 32)
ENCODED_ROWS = (1, 2, 4, 8, 16, 20)
STEPS = 40
ROUNDS = 7
KEPT = "costs.json"


def measure(model: Model, rows: Sequence[Row]) -> Costs:
    """Seconds of a pass by tokens and of a step by rows: all sizes take turns, the median round of each counts.

    Args:
        rows: with lengths as callers have them, of sources and of what is to be written.
    """
    encode: dict[int, list[float]] = {}
    step: dict[int, list[float]] = {}
    for _ in range(ROUNDS):
        for count in ENCODED_ROWS:
            some = rows[:count]
            began = time.perf_counter()
            model.admit(dict(enumerate(some)))
            encode.setdefault(sum(len(row.tokens) for row in some), []).append(time.perf_counter() - began)
            model.reset()
        for count in STEP_ROWS:
            step.setdefault(count, []).append(_step_s(model, rows, count))
    least = min(encode)
    return Costs({0: 0.0, 1: statistics.median(encode[least]), **_medians(encode)}, {0: 0.0, **_medians(step)})


def _medians(found: dict[int, list[float]]) -> dict[int, float]:
    return {size: statistics.median(taken) for size, taken in found.items()}


def _step_s(model: Model, rows: Sequence[Row], count: int) -> float:
    """The mean step of so many rows that end and are followed by others, with the books that the service keeps."""
    served_rows, waiting = Rows(model, "costs"), enumerate(cycle(rows))
    batches: dict[int, Batch] = {}

    def enqueue(more: int) -> None:
        for number, row in islice(waiting, more):
            batches[number] = Batch(number, range(number, number + 1), (row,), len(row.tokens), 0.0)
            served_rows.enqueue(batches[number])

    enqueue(count)
    steps, total_s = 0, 0.0
    while steps < STEPS:
        joining = served_rows.schedule()
        began = time.perf_counter()
        if served_rows.iterate(joining) == count:
            encode_s = max((batches[number].encode_s for number in joining), default=0.0)
            total_s += time.perf_counter() - began - encode_s
            steps += 1
        enqueue(len(served_rows.settled))
        served_rows.settled.clear()
    served_rows.clear()
    return total_s / steps


@dataclass(frozen=True, slots=True)
class Seen:
    """A load's throughput in requests per second, and latencies in seconds."""

    per_s: float
    p50_s: float
    p95_s: float


def _seen(latencies_s: Sequence[float], wall_s: float) -> Seen:
    p50_s, p95_s = np.quantile(latencies_s, (0.5, 0.95)).tolist()
    return Seen(len(latencies_s) / wall_s, p50_s, p95_s)


class Check:
    """The same loads on the service and on the simulation.

    Args:
        machine: as the service has it.
        texts: what is asked, with the tokens of each.
    """

    def __init__(self, material: Material, machine: Machine, texts: Sequence[tuple[Text, Asked]]) -> None:
        self._material, self._machine, self._texts = material, machine, texts
        self._overhead_s = 0.0

    def run(self) -> Iterator[tuple[str, Seen, Seen]]:
        """What was loaded, as seen on the service and on the simulation."""
        bundle = self._material.bundle("int8")
        with served(self._material.folder, bundle, "embedded", replicas=1) as service:
            requests = [client.post(service.url + ROUTE, text.body()) for text, _ in self._texts]
            url = service.url + ROUTE
            lone = client.closed_loop(url, requests[:LONE_REQUESTS], callers=1)
            alone = self._closed(LONE_REQUESTS, callers=1)
            # What HTTP, validation and tokenizing take, which the simulation leaves out, from one caller alone.
            self._overhead_s = max(0.0, lone.quantile_s(0.5) - alone.p50_s)
            yield "1 caller", _seen(lone.latencies_s, lone.wall_s), self._closed(LONE_REQUESTS, callers=1)
            full = client.closed_loop(url, requests[:CLOSED_REQUESTS], callers=CALLERS)
            seen = _seen(full.latencies_s, full.wall_s)
            yield f"{CALLERS} callers", seen, self._closed(CLOSED_REQUESTS, callers=CALLERS)
            for seed, share in enumerate(SHARES):
                per_s = share * seen.per_s
                some = requests[: round(per_s * POISSON_S)]
                came = client.open_loop(url, some, per_s=per_s, seed=seed)
                what = f"Poisson, {per_s:.1f} requests/s"
                yield what, _seen(came.latencies_s, came.wall_s), self._open(len(some), per_s, seed)

    def _closed(self, count: int, *, callers: int) -> Seen:
        events = Events()
        group = Group(events, self._machine, replicas=1)
        requests = [asked for _, asked in islice(self._texts, count)]
        closed_loop(group, events, requests, callers=callers, pause_s=self._overhead_s)
        return self._result(group, events)

    def _open(self, count: int, per_s: float, seed: int) -> Seen:
        events = Events()
        group = Group(events, self._machine, replicas=1)
        due = np.cumsum(np.random.default_rng(seed).exponential(1 / per_s, count)).tolist()
        open_loop(group, events, [asked for _, asked in islice(self._texts, count)], due)
        return self._result(group, events)

    def _result(self, group: Group, events: Events) -> Seen:
        events.run(1e5)
        ended_s = max(outcome.answered_s or 0.0 for outcome in group.outcomes) + self._overhead_s
        return _seen([outcome.latency_s + self._overhead_s for outcome in group.outcomes], ended_s)


def check(folder: Path, out: Path) -> None:
    """Measure, compare, and keep the step times for `spike`."""
    material = prepare(folder, ["int8"])
    loaded = load(material.bundle("int8"))
    texts = draw(material.checkpoint / "tokenizer.json", 2000, seed=0)
    bodies = (TranslationRequest.model_validate(text.body()) for text in texts)
    rows = [next(loaded.task.solve(body))[0] for body in bodies]
    costs = measure(loaded.model, rows)
    asked = [Asked(len(row.tokens), text.output_tokens) for row, text in zip(rows, texts, strict=True)]
    found = Check(material, Machine(costs, Limits(4096, 262_144)), list(zip(texts, asked, strict=True))).run()
    columns = ("load", "requests/s, real", "simulated", "ratio", "p50, real", "simulated", "p95, real", "simulated")
    lines = []
    for what, real, simulated in found:
        numbers = (
            f"{real.per_s:.1f}", f"{simulated.per_s:.1f}", f"{simulated.per_s / real.per_s:.2f}",
            f"{1e3 * real.p50_s:.0f} ms", f"{1e3 * simulated.p50_s:.0f} ms",
            f"{1e3 * real.p95_s:.0f} ms", f"{1e3 * simulated.p95_s:.0f} ms", f"{simulated.p95_s / real.p95_s:.2f}",
        )  # fmt: skip
        lines.append((what, *numbers))
    print(markdown((*columns, "ratio"), lines))
    kept = {**asdict(costs), "asked": [(each.source_tokens, each.new_tokens) for each in asked], "on": hardware()}
    (out / KEPT).write_text(json.dumps(kept), encoding="utf-8")
    print(f"\nA step of 1, 8, 32 rows: {', '.join(f'{1e3 * costs.step_s[rows]:.1f}' for rows in (1, 8, 32))} ms")


def main() -> None:
    """Compare, or show fleets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("check", "spike", "policies"))
    parser.add_argument("--folder", type=Path, default=Path("runs/peers"), help="for the model and the logs")
    parser.add_argument("--out", type=Path, default=Path("runs/simulation"), help="for the step times")
    parser.add_argument("--docs", type=Path, help="write the picture there")
    options = parser.parse_args()
    if options.what == "check":
        for made in (options.folder, options.out):
            made.mkdir(parents=True, exist_ok=True)
        check(options.folder, options.out)
        return
    kept = json.loads((options.out / KEPT).read_text(encoding="utf-8"))
    costs = Costs(*({int(size): taken for size, taken in kept[name].items()} for name in ("encode_s", "step_s")))
    draw = show if options.what == "spike" else compare
    draw(costs, [Asked(*each) for each in kept["asked"]], options.docs)


if __name__ == "__main__":
    main()
