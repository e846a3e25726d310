"""Heedful and its peers as servers of one task: how each is started, asked and stopped."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from loadtests.client import RefusedError, answers, post
from loadtests.peers import engines
from loadtests.peers.traffic import Asked, Question, served
from tests.serving import free_port

REPOSITORY = Path(__file__).parents[2]
OWN_PYTHON = REPOSITORY / ".venv-peers" / "bin" / "python"
"""Of the peers whose dependencies do not go with ours: see `make peers`."""
START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 40

Body = Callable[[Asked | Question | str], Any]


def plain(asked: Asked | Question | str) -> dict[str, Any]:
    """The body that the peers' servers take; a string is to be echoed."""
    if isinstance(asked, str):
        return {"inputs": asked}
    if isinstance(asked, Question):
        return asked.inputs()
    return {"text": asked.text, "output_tokens": asked.output_tokens}


@dataclass(frozen=True, slots=True)
class System:
    """A server to compare.

    Args:
        name: in tables.
        command: after the interpreter; none for Heedful itself.
        path: of its one route.
        body: what it is asked.
        environment: beside what every peer gets.
        own_python: it needs the environment of `OWN_PYTHON`.
    """

    name: str
    command: Sequence[str]
    path: str = "/"
    body: Body = plain
    environment: tuple[tuple[str, str], ...] = ()
    own_python: bool = False

    def python(self, own: Path = OWN_PYTHON) -> Path:
        """The interpreter that runs it."""
        return own if self.own_python else Path(sys.executable)


_SERVERS = "loadtests.peers.servers"
RAY_SERVE = System("Ray Serve", ("-m", f"{_SERVERS}.ray_serve"))
PEERS = (
    System("FastAPI without batching", ("-m", f"{_SERVERS}.fastapi_plain")),
    System("FastAPI with a queue", ("-m", f"{_SERVERS}.fastapi_queue")),
    RAY_SERVE,
    System(
        "Ray Serve with HAProxy",
        ("-m", f"{_SERVERS}.ray_serve"),
        environment=(("RAY_SERVE_ENABLE_HA_PROXY", "1"), ("RAY_SERVE_THROUGHPUT_OPTIMIZED", "1")),
    ),
    System("LitServe", ("-m", f"{_SERVERS}.litserve_api"), path="/predict", own_python=True),
    System(
        "BentoML",
        ("-m", "bentoml", "serve", f"{_SERVERS}.bentoml_service:Service", "--host", "127.0.0.1", "--port"),
        path="/answer",
        body=lambda asked: {"bodies": [plain(asked)]},
        own_python=True,
    ),
)


def available(own: Path = OWN_PYTHON) -> tuple[System, ...]:
    """The peers whose interpreter is there."""
    return tuple(system for system in PEERS if system.python(own).exists())


@contextmanager
def running(
    system: System, task: str, folder: Path, own: Path = OWN_PYTHON, *, workers: int | None = None
) -> Iterator[str]:
    """A peer with one task, ready to answer at the URL; stopped at the end.

    Args:
        workers: processes or threads that compute; one for each core unless given.

    Raises:
        RuntimeError: it does not start.
    """
    port, cores = free_port(), os.cpu_count() or 1
    settings = {
        engines.TASK: task,
        engines.FOLDER: folder.resolve(),
        engines.PORT: port,
        engines.WORKERS: workers or cores,
    }
    environment = {
        **os.environ,
        **{name: str(value) for name, value in settings.items()},
        **dict(system.environment),
        "PYTHONPATH": os.pathsep.join((str(REPOSITORY), os.environ.get("PYTHONPATH", ""))),
        "BENTOML_HOME": str(folder.resolve() / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
    }
    command = [str(system.python(own)), *system.command]
    if command[-1] == "--port":
        command.append(str(port))
    log = folder / f"{task}-{system.name.lower().replace(' ', '-')}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=environment, stdout=out, stderr=subprocess.STDOUT, cwd=folder, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{port}{system.path}"
        wait_until_answered(process, url, system.body(_FIRST[task]), log)
        yield url
    finally:
        stop(process)


_FIRST: Mapping[str, Asked | Question | str] = {
    "echo": "a",
    "translation": Asked("a", 1, 1),
    "question-answering": Question("what", "a word"),
}


def wait_until_answered(process: "subprocess.Popen[bytes]", url: str, body: Any, log: Path) -> None:
    """Ask until there is an answer.

    Raises:
        RuntimeError: the process ends first, or takes too long.
    """
    request = post(url, body)
    give_up = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < give_up:
        try:
            answers(url, [request])
        except (OSError, RefusedError, TimeoutError):
            time.sleep(0.2)
        else:
            return
    raise RuntimeError(f"{url} does not answer, see {log}")


def stop(process: "subprocess.Popen[bytes]") -> None:
    """Ask it to end, and end what it left."""
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _, left = psutil.wait_procs(family, timeout=5)
    for child in left:
        child.kill()


@contextmanager
def heedful(task: str, folder: Path, bundle: Path) -> Iterator[str]:
    """Heedful on Ray with a replica for each core, ready to answer at the URL; stopped at the end."""
    with served(folder, bundle, "ray", replicas=os.cpu_count() or 1) as service:
        yield f"{service.url}/v1/{task}"


def heedful_body(asked: Asked | Question) -> dict[str, Any]:
    """What Heedful is asked."""
    return {"inputs": asked.inputs()} if isinstance(asked, Question) else asked.body()
