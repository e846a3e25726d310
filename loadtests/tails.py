"""Who waits how long when questions come at random at half of capacity, simulated: what could bring the tail down.

    python -m loadtests.tails [--runs 40] [--load 0.5]

Lengths are those of the benchmark, and a pass of so many tokens takes what one takes of DistilBERT's size in int8 on a
core. Two cores answer from one queue, as FastAPI without batching does; beside that, replicas of the service with its
own schedule behind a load balancer that picks the one with the fewest, other orders, and both cores for each pass.
"""

import argparse
import heapq
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from loadtests.bars import markdown
from loadtests.peers.traffic import FEWEST_TOKENS, MEDIAN_TOKENS, MOST_TOKENS, SPREAD
from loadtests.simulated import Costs, Events, Machine
from loadtests.simulation import Asked, Group, open_loop
from service.admission import Limits

CORES = 2
PASS_S, TOKEN_S = 0.003, 0.00036
"""Of any pass, and for each of its tokens, on one core of the machine in docs/performance.md."""
SPEEDUP = 1.7
"""Of a pass that has two cores for itself."""
REQUESTS = 250
"""Of one run, as many as the benchmark sends."""

Seconds = NDArray[np.float64]
Tokens = NDArray[np.int64]
Way = Callable[[Tokens, Seconds], Seconds]
"""From lengths and times of arrival to latencies."""


def one_queue(servers: int = CORES, *, speedup: float = 1.0, shortest_first: bool = False) -> Way:
    """Whatever waits is taken by the first that is free."""

    def run(tokens: Tokens, at_s: Seconds) -> Seconds:
        needed_s = (PASS_S + TOKEN_S * tokens) / speedup
        free_s, waiting = [0.0] * servers, list[tuple[float, int]]()
        latencies, coming = np.zeros(len(tokens)), 0
        for _ in tokens:
            now_s = heapq.heappop(free_s)
            if not waiting:
                now_s = max(now_s, at_s[coming])
            while coming < len(tokens) and at_s[coming] <= now_s:
                heapq.heappush(waiting, (needed_s[coming] if shortest_first else coming, coming))
                coming += 1
            _, taken = heapq.heappop(waiting)
            now_s = max(now_s, at_s[taken])
            heapq.heappush(free_s, now_s + needed_s[taken])
            latencies[taken] = now_s + needed_s[taken] - at_s[taken]
        return latencies

    return run


def replicas(budget_tokens: int) -> Way:
    """The service's own schedule, with so many tokens of one pass."""

    def run(tokens: Tokens, at_s: Seconds) -> Seconds:
        events = Events()
        costs = Costs({1: PASS_S + TOKEN_S, 1001: PASS_S + 1001 * TOKEN_S}, {0: 0.0, 1: 0.0})
        machine = Machine(costs, Limits(10**6, 10**9), budget_tokens=budget_tokens)
        group = Group(events, machine, CORES)
        open_loop(group, events, [Asked(length, 1) for length in tokens.tolist()], at_s.tolist())
        events.run(at_s[-1] + 1000)
        return np.array([outcome.latency_s for outcome in group.outcomes])

    return run


def helped(tokens: Tokens, at_s: Seconds) -> Seconds:
    """A queue for each core, the shortest gets who comes; a pass computes on the other core too while that is idle."""
    left_s, latencies = PASS_S + TOKEN_S * tokens, np.zeros(len(tokens))
    queues, now_s, coming = [deque[int]() for _ in range(CORES)], 0.0, 0
    while coming < len(tokens) or any(queues):
        busy = [queue for queue in queues if queue]
        pace = SPEEDUP if len(busy) == 1 else 1.0
        ends_s = min((left_s[queue[0]] / pace for queue in busy), default=np.inf)
        comes_s = at_s[coming] - now_s if coming < len(tokens) else np.inf
        now_s += min(ends_s, comes_s)
        for queue in busy:
            left_s[queue[0]] -= min(ends_s, comes_s) * pace
        if comes_s <= ends_s:
            min(queues, key=len).append(coming)
            coming += 1
        else:
            done = min(busy, key=lambda queue: left_s[queue[0]]).popleft()
            latencies[done] = now_s - at_s[done]
    return latencies


WAYS: dict[str, Way] = {
    "one queue, a core each: FastAPI without batching": one_queue(),
    "two replicas, passes of up to 512 tokens": replicas(512),
    "two replicas, passes of up to 128 tokens": replicas(128),
    f"two replicas, {SPEEDUP} times as fast while the other is idle": helped,
    "one queue, the shortest first": one_queue(shortest_first=True),
    f"one queue, both cores for each pass, {SPEEDUP} times as fast": one_queue(1, speedup=SPEEDUP),
}


def drawn(requests: int, load: float, seed: int) -> tuple[Tokens, Seconds]:
    """Lengths, and times of arrival at this share of what the cores can do."""
    rng = np.random.default_rng(seed)
    tokens = np.clip(rng.lognormal(np.log(MEDIAN_TOKENS), SPREAD, requests), FEWEST_TOKENS, MOST_TOKENS).astype(int)
    usual_s = float((PASS_S + TOKEN_S * tokens).mean())
    return tokens, rng.exponential(usual_s / (load * CORES), requests).cumsum()


def table(runs: int, load: float) -> str:
    """Markdown: quantiles over all runs' requests, and p99 of each run beside that of the first way."""
    asked = [drawn(REQUESTS, load, seed) for seed in range(runs)]
    found = {name: [way(*each) for each in asked] for name, way in WAYS.items()}
    first, *_ = found.values()
    lines = [(name, *_cells(latencies, first)) for name, latencies in found.items()]
    return markdown(("who computes what, when", "p50", "p99", "p99 of a run ÷ the first (80 % of runs)"), lines)


def _cells(latencies: Sequence[Seconds], first: Sequence[Seconds]) -> tuple[str, str, str]:
    p50, p99 = np.quantile(np.concatenate(latencies), (0.5, 0.99)) * 1e3
    ratios = [np.quantile(mine, 0.99) / np.quantile(other, 0.99) for mine, other in zip(latencies, first, strict=True)]
    low, middle, high = np.quantile(ratios, (0.1, 0.5, 0.9))
    return f"{p50:.0f} ms", f"{p99:.0f} ms", f"{middle:.2f} ({low:.2f}-{high:.2f})"


def main() -> None:
    """Print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=40, help=f"of {REQUESTS} requests")
    parser.add_argument("--load", type=float, default=0.5, help="share of what the cores can do")
    options = parser.parse_args()
    print(table(options.runs, options.load))


if __name__ == "__main__":
    main()
