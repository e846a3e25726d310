"""Starts and stops `heedful serve` as an operator would, for tests over real HTTP."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from service.ray_environment import free_ports

START_TIMEOUT_S = 180
HEEDFUL = Path(sys.executable).with_name("heedful")
# Read in a moment, and translated for longer than any test waits: words that are welcome again and again come until
# `max_new_tokens`, for each sentence.
LASTING: dict[str, Any] = {
    "inputs": "Good morning.\n" * 2000,
    "parameters": {"generate_parameters": {"repetition_penalty": 0.1}},
}


@dataclass(frozen=True, slots=True)
class Service:
    """A running `heedful serve` and where its output goes."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path


def free_port() -> int:
    return next(free_ports())


def launch(runtime: str, log: Path, *arguments: str, folder: Path | None = None, **environment: str) -> Service:
    """Start `heedful serve` on a free port, in a session of its own, standing in `folder`."""
    port = free_port()
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(HEEDFUL), "serve", "--runtime", runtime, "--port", str(port), *arguments],
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    return Service(f"http://127.0.0.1:{port}", process, log)


def start(runtime: str, log: Path, *arguments: str, folder: Path | None = None, **environment: str) -> Service:
    """Start `heedful serve` and wait until it is ready."""
    service = launch(runtime, log, *arguments, folder=folder, **environment)
    give_up = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < give_up:
        if service.process.poll() is not None:
            raise RuntimeError(f"heedful serve ended with {service.process.returncode}:\n{log.read_text()}")
        try:
            if httpx.get(f"{service.url}/readyz").status_code == 200:
                return service
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    service.process.kill()
    raise RuntimeError(f"heedful serve was not ready within {START_TIMEOUT_S} s:\n{log.read_text()}")


def stop(service: Service) -> None:
    """End a service as an operator would."""
    service.process.send_signal(signal.SIGTERM)
    service.process.wait(60)


def until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    """Wait for what a service does of its own accord, and what is seen from outside a moment later."""
    give_up = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up, f"not within {timeout_s} s"
        time.sleep(0.02)


def rows_inside(http: httpx.Client, task: str) -> float:
    """Rows of a task that run or wait."""
    inside = ("heedful_running_rows{", "heedful_waiting_rows{")
    return sum(value for name, value in _samples(http, task) if name.startswith(inside))


def ended(http: httpx.Client, task: str) -> Counter[str]:
    """How many requests of a task have ended so far, by their status."""
    statuses: Counter[str] = Counter()
    for name, value in _samples(http, task):
        if name.startswith("heedful_requests_total{"):
            statuses[name.partition('status="')[2].partition('"')[0]] += int(value)
    return statuses


def outcome(http: httpx.Client, task: str, before: Counter[str]) -> Counter[str]:
    """How the requests ended that had not `before`, as soon as one has and no row is left inside."""
    give_up = time.monotonic() + 20
    while not (statuses := ended(http, task) - before) or rows_inside(http, task):
        assert time.monotonic() < give_up, f"after 20 s there are rows left, or no request has ended: {statuses}"
        time.sleep(0.02)
    return statuses


def _samples(http: httpx.Client, task: str) -> Iterator[tuple[str, float]]:
    for line in http.get("/metrics").text.splitlines():
        name, _, value = line.rpartition(" ")
        if f'task="{task}"' in name:
            yield name, float(value)
