"""What everything but the model costs: an echo through Heedful beside an echo without it, in turn.

    python -m loadtests.overhead [--runs 3] [--seconds 5] [--folder runs/peers]

On Ray, beside Ray Serve's documented pattern: a FastAPI ingress, a handle, a `@serve.batch`, behind Ray's default
proxy, one replica each. Embedded, beside a typed FastAPI endpoint on uvicorn, one process each.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loadtests.bars import COLUMNS, Measured, markdown, of_runs
from loadtests.client import Load, for_seconds, post
from loadtests.echo import ROUTE
from loadtests.peers.systems import RAY_SERVE, System, running, stop, wait_until_answered
from tests.serving import free_port

CALLERS = 32
RUNS, SECONDS = 3, 5.0
ON_RAY_BAR, EMBEDDED_BAR = 10, 0.7
TEXT = "The quick brown fox jumps over the lazy dog. " * 4
FASTAPI = System("FastAPI on uvicorn", ("-m", "loadtests.peers.servers.fastapi_echo"))


@contextmanager
def _heedful(runtime: str, folder: Path) -> Iterator[str]:
    port = free_port()
    program = f"from loadtests.echo import serve; serve({runtime!r}, {port}, {str(folder)!r})"
    log = folder / f"echo-{runtime}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}{ROUTE}"
    try:
        wait_until_answered(process, url, {"inputs": "a"}, log)
        yield url
    finally:
        stop(process)


def _load(url: str, seconds: float) -> Load:
    requests = [post(url, {"inputs": TEXT})]
    for_seconds(url, requests, callers=CALLERS, seconds=seconds / 5)
    return for_seconds(url, requests, callers=CALLERS, seconds=seconds)


def on_ray(folder: Path, runs: int, seconds: float) -> Measured:
    """Each run starts both, one after the other."""
    return _compare("ray", RAY_SERVE, ON_RAY_BAR, folder, runs=runs, seconds=seconds)


def embedded(folder: Path, runs: int, seconds: float) -> Measured:
    """Likewise."""
    return _compare("embedded", FASTAPI, EMBEDDED_BAR, folder, runs=runs, seconds=seconds)


def _compare(runtime: str, peer: System, bar: float, folder: Path, *, runs: int, seconds: float) -> Measured:
    ours, theirs = [], []
    for _ in range(runs):
        with _heedful(runtime, folder) as url:
            ours.append(_load(url, seconds))
        with running(peer, "echo", folder, workers=1) as url:
            theirs.append(_load(url, seconds))
    return of_runs(
        f"echo, {'on Ray' if runtime == 'ray' else runtime}, {CALLERS} callers",
        [load.per_s for load in ours],
        [load.per_s for load in theirs],
        "requests/s",
        f"{peer.name}, its documented pattern" if peer is RAY_SERVE else peer.name,
        bar=bar,
        client=[load.client_cores for load in ours],
    )


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of load on each, in each run")
    parser.add_argument("--folder", type=Path, default=Path("runs/peers"), help="for the bundle and the logs")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    lines = [measure(options.folder, options.runs, options.seconds) for measure in (on_ray, embedded)]
    print(markdown(COLUMNS, (line.cells() for line in lines)))


if __name__ == "__main__":
    main()
