"""How long each host takes from its command to the first answer, and how many processes and how much memory it holds.

    python -m loadtests.footprint [--runs 3]

Starts `heedful serve` on both hosts in turn, asks for a translation until one is given, and prints medians as a table.
Memory is the proportional set size (PSS) of the process and all its descendants, so that shared pages count once.
"""

import argparse
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

import httpx
import psutil

from tests.serving import free_port

QUESTION = {"inputs": "Good morning."}
GIVE_UP_S = 120
SETTLE_S = 3


@dataclass(frozen=True, slots=True)
class Footprint:
    """One start of one host."""

    first_answer_s: float
    processes: int
    memory_mib: float


def measure(runtime: str) -> Footprint:
    """Start a host, wait for its first answer, look at its processes, stop it."""
    port = free_port()
    began = time.perf_counter()
    command = [sys.executable, "-m", "service", "serve", "--runtime", runtime, "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            first_answer_s = _first_answer(f"http://127.0.0.1:{port}/v1/translation", server, began) - began
            time.sleep(SETTLE_S)
            tree = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
            memory = [pss for process in tree if (pss := _memory(process))]
            return Footprint(first_answer_s, len(memory), sum(memory) / 2**20)
        finally:
            server.terminate()


def _memory(process: psutil.Process) -> int:
    """Bytes; 0 for a process that has ended meanwhile."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.NoSuchProcess:
        return 0


def _first_answer(url: str, server: subprocess.Popen[bytes], began: float) -> float:
    with httpx.Client(timeout=10) as http:
        while server.poll() is None and time.perf_counter() - began < GIVE_UP_S:
            try:
                if http.post(url, json=QUESTION).status_code == 200:
                    return time.perf_counter()
            except httpx.TransportError:
                pass
            time.sleep(0.1)
    ended = f"the service ended with status {server.returncode}" if server.returncode is not None else "gave up"
    raise SystemExit(f"no answer from {url} after {time.perf_counter() - began:.0f} s: {ended}")


def main() -> None:
    """Measure both hosts in turn and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    found: dict[str, list[Footprint]] = {"ray": [], "embedded": []}
    for _ in range(runs):
        for runtime, footprints in found.items():
            footprints.append(measure(runtime))
    print(f"| host | first answer | processes | memory |  medians of {runs}\n|---|---|---|---|")
    for runtime, footprints in found.items():
        first = statistics.median(entry.first_answer_s for entry in footprints)
        processes = statistics.median(entry.processes for entry in footprints)
        memory = statistics.median(entry.memory_mib for entry in footprints)
        print(f"| {runtime} | {first:.1f} s | {processes:.0f} | {memory:.0f} MiB |")


if __name__ == "__main__":
    main()
