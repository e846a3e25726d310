"""Starts and stops `heedful serve` as an operator would, for tests over real HTTP."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from service.ray_environment import free_ports

START_TIMEOUT_S = 180
HEEDFUL = Path(sys.executable).with_name("heedful")


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


def rows_inside(http: httpx.Client, task: str) -> float:
    """Rows of a task that run or wait."""
    lines = http.get("/metrics").text.splitlines()
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith(("heedful_running_rows{", "heedful_waiting_rows{")) and f'task="{task}"' in line
    )
