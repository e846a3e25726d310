"""What others notice of explanations: their latency while explanations run, divided by that without any.

    python -m loadtests.explaining [--rounds 5] [--seconds 10] [--callers 4] [--explainers 2]

Starts `heedful serve` in one process. In each round every task's callers ask one request after the other for so many
seconds, once alone and once beside callers who ask the same model for explanations by both methods, in turns. Prints
for each task the medians over the rounds of p50, p99 and of their ratios, and how many explanations were answered.
"""

import argparse
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

import httpx
import numpy as np

from tests.serving import free_port

GIVE_UP_S = 120
METHODS = ("attention", "occlusion")
TEXT = "I do not know where she lives. Can you help me find my keys? We have to leave before the sun goes down."
CONTEXT = (
    "The Seine is a river in northern France. It rises at Source-Seine, near Dijon, and flows through Paris into the"
    " English Channel at Le Havre. It is 777 kilometres long, and ocean-going vessels can use it as far as Rouen."
)
REQUESTS: Mapping[str, Mapping[str, Any]] = {
    "translation": {"inputs": TEXT},
    "summarization": {"inputs": CONTEXT},
    "question-answering": {"inputs": {"question": "Where does the Seine rise?", "context": CONTEXT}},
    "recommendation": {"inputs": {"history": ["22423", "85123A", "21733", "22804"]}},
}


def ask(url: str, request: Mapping[str, Any], until: float, answered: list[tuple[float, float]]) -> None:
    """One request after the other: when each was answered, and how long it took."""
    with httpx.Client(timeout=GIVE_UP_S) as http:
        while time.perf_counter() < until:
            began = time.perf_counter()
            http.post(url, json=request).raise_for_status()
            answered.append((time.perf_counter(), time.perf_counter() - began))


def phase(url: str, task: str, seconds: float, callers: int, explainers: int) -> tuple[list[float], int]:
    """Latencies of the callers, in seconds, and how many explanations were answered while they called."""
    answered: list[tuple[float, float]] = []
    explained: list[tuple[float, float]] = []
    until, route = time.perf_counter() + seconds, f"{url}/v1/{task}"
    explain = {**REQUESTS[task], "explain": {"method": METHODS}}
    threads = [threading.Thread(target=ask, args=(route, REQUESTS[task], until, answered)) for _ in range(callers)]
    threads += [threading.Thread(target=ask, args=(route, explain, until, explained)) for _ in range(explainers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [latency_s for _, latency_s in answered], sum(ended <= until for ended, _ in explained)


def measure(url: str, task: str, options: argparse.Namespace) -> str:
    """A row of the table."""
    alone: list[Any] = []
    beside: list[Any] = []
    explained = 0
    phase(url, task, 1, options.callers, 1)  # so that the graph of attention is loaded
    for _ in range(options.rounds):
        alone.append(np.percentile(phase(url, task, options.seconds, options.callers, 0)[0], (50, 99)))
        latencies_s, count = phase(url, task, options.seconds, options.callers, options.explainers)
        beside.append(np.percentile(latencies_s, (50, 99)))
        explained += count
    cells = []
    for index in range(2):
        before, during = ([each[index] * 1e3 for each in side] for side in (alone, beside))
        ratios = [late / early for early, late in zip(before, during, strict=True)]
        cells += [f"{statistics.median(before):.0f} ms", f"{statistics.median(during):.0f} ms"]
        cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})")
    return f"| {task} | {' | '.join(cells)} | {explained / (options.rounds * options.seconds):.1f} |"


def main() -> None:
    """Measure every task and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--callers", type=int, default=4)
    parser.add_argument("--explainers", type=int, default=2)
    options = parser.parse_args()
    port = free_port()
    command = [sys.executable, "-m", "service", "serve", "--runtime", "embedded", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_ready(url, server)
            print("| task | p50 alone | beside | ratio | p99 alone | beside | ratio | explanations/s |")
            print(f"|{'---|' * 8}")
            for task in REQUESTS:
                print(measure(url, task, options), flush=True)
        finally:
            server.terminate()


def wait_until_ready(url: str, server: "subprocess.Popen[bytes]") -> None:
    """Raises SystemExit when the service ends or takes too long."""
    began = time.perf_counter()
    while server.poll() is None and time.perf_counter() - began < GIVE_UP_S:
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit("the service did not become ready")


if __name__ == "__main__":
    main()
