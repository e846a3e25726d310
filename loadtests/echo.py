"""A task that answers what it is sent, through the whole of Heedful: what everything but a model costs.

    python -c 'from loadtests.echo import serve; serve("ray", 8123, "folder")'

It is known only to the processes that import this module: a task, a model that computes nothing, and the line that puts
both where bundles are loaded.
"""

import socket
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
from pydantic import BaseModel

from models.bundle import open_bundle
from models.explainer import Explainer
from models.generation import Closed
from models.load import Loaded
from models.task import Cost, Event, Row, RowId, Solution, Task
from models.tasks import TASKS
from service import hosting, logs
from service.embedded import run_embedded
from service.ray_environment import prepare
from service.settings import ModelSettings, Settings
from tests.tiny import write_bundle

ROUTE = "/v1/echo"
SLOTS = 256


class EchoRequest(Closed):
    """What is sent."""

    inputs: str


class EchoAnswer(Closed):
    """What comes back."""

    inputs: str


class Echo:
    """One row of one token, and the text as it came."""

    id: ClassVar[str] = "echo"
    request_type: ClassVar[type[BaseModel]] = EchoRequest
    response_type: ClassVar[Any] = EchoAnswer

    def solve(self, request: EchoRequest) -> Solution[EchoAnswer]:
        yield [Row(np.zeros(1, np.int64))]
        return EchoAnswer(inputs=request.inputs)


class Nothing:
    """A model whose pass takes no time."""

    padding_tokens = 0

    def __init__(self) -> None:
        self._rows: list[RowId] = []

    def cost(self, row: Row) -> Cost:
        return Cost(1, len(row.tokens))

    def room(self) -> Cost:
        return Cost(SLOTS - len(self._rows), SLOTS)

    def admit(self, rows: Mapping[RowId, Row]) -> None:
        self._rows += rows

    def step(self) -> Sequence[Event]:
        rows, self._rows = self._rows, []
        return [Event(row, finish="stop") for row in rows]

    def drop(self, ids: Collection[RowId]) -> None:
        self._rows = [row for row in self._rows if row not in ids]

    def reset(self) -> None:
        self._rows = []


def _load(folder: Path, **_: Any) -> Loaded:
    explainer = Explainer(Nothing(), None, None)
    return Loaded(open_bundle(folder), "fp32", cast("Task[Any, Any]", Echo()), Nothing(), explainer, None, 0)


cast("dict[str, Any]", TASKS)[Echo.id] = Echo
vars(hosting)["load"] = _load


def serve(runtime: str, port: int, folder: str) -> None:
    """Serve the echo until SIGTERM.

    Args:
        runtime: "ray" or "embedded".
        port: to listen on.
        folder: where the bundle is written unless it is there.
    """
    bundle = Path(folder).resolve() / "bundle-echo"
    if not bundle.is_dir():
        write_bundle(bundle, Echo.id, task=Echo.id, example={"inputs": "a"})
    settings = Settings(models=(ModelSettings(bundle=bundle),), port=port, log_level="warning")
    logs.configure(settings.log_level)
    if runtime == "embedded":
        run_embedded(settings, socket.create_server((settings.host, port)), lambda: None)
        return
    with tempfile.TemporaryDirectory(prefix="heedful-", dir="/tmp", ignore_cleanup_errors=True) as run_folder:
        prepare(Path(run_folder))
        from loadtests.echo_cluster import run  # noqa: PLC0415 - Ray is imported once its environment is prepared

        run(settings, Path(run_folder))
