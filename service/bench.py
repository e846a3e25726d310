"""The bench command: how fast a bundle answers by its model alone, through the engine, and over HTTP."""

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated

import httpx
import numpy as np
import typer
import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from models.load import Loaded, load
from models.offline import answer_all
from models.tasks import TASKS
from service import logs
from service.contract import ModelCard
from service.errors import StartError, UsageError
from service.hosting import Call, LocalHost, model_cards
from service.ray_environment import free_ports
from service.settings import ModelSettings, Settings
from service.tune import store, tune

CALLERS = (1, 8, 32)
START_TIMEOUT_S = 120
ANSWER_TIMEOUT_S = 120
REQUESTS_OF_A_CALLER = 8
"""In one turn of the model alone; its last ones run beside fewer and fewer others."""

Ask = Callable[[int], Awaitable[None]]
"""Answers the request of this number."""


@dataclass(frozen=True, slots=True)
class Speed:
    """How so many callers were answered; latencies in milliseconds, of the model alone unknown."""

    requests_per_s: float
    p50_ms: float | None = None
    p99_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One number of callers: the model alone is the upper bound, the engine adds the schedule, HTTP the rest."""

    callers: int
    alone: Speed
    engine: Speed
    http: Speed


def bench(
    bundle: Annotated[Path, typer.Argument(help="The bundle's folder.", show_default=False)],
    *,
    requests: Annotated[
        Path | None,
        typer.Option(
            help="Bodies of requests, one JSON object a line; else the bundle's own example.", show_default=False
        ),
    ] = None,
    callers: Annotated[
        list[int] | None,
        typer.Option(help="How many ask at once, each waiting for its answer; may be repeated.  [default: 1, 8, 32]"),
    ] = None,
    seconds: Annotated[float, typer.Option(help="Of each measurement.", min=0.1, max=600)] = 3.0,
    threads: Annotated[int, typer.Option(help="Of ONNX Runtime.", min=1, max=256)] = 1,
    is_tuning: Annotated[
        bool,
        typer.Option(
            "--tune", help="First find how many tokens one pass should take here, and keep that in the bundle."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of a table.")] = False,
) -> None:
    """Measure a bundle on this machine: by its model alone, through the engine, and over HTTP in one process."""
    logs.configure("warning")
    settings = Settings(models=(ModelSettings(bundle=bundle),), threads=threads, log_level="warning")
    card = model_cards(settings)[0]
    bodies = _bodies(requests, card)
    counts = callers or list(CALLERS)
    if any(not 1 <= count <= settings.slots * 32 for count in counts):
        raise UsageError(f"--callers must be from 1 to {settings.slots * 32}, got {', '.join(map(str, counts))}")
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        shown = progress.add_task("starting", total=3 * len(counts) + is_tuning)

        def done(what: str) -> None:
            progress.update(shown, description=what, advance=1)

        found = None
        if is_tuning:
            progress.update(shown, description="tuning")
            found = tune(bundle, card.precision, slots=settings.slots, threads=threads, seconds=seconds)
            store(bundle, found)
            done("tuned")
        lines = _Bench(settings, card, bodies, seconds, done).measure(counts)
    if as_json:
        tuned = {"budget_tokens": asdict(found)} if found else {}
        plain = {"model": card.name, "task": card.task, "precision": card.precision, **tuned}
        typer.echo(json.dumps({**plain, "lines": [asdict(line) for line in lines]}, indent=1))
        return
    if found:
        typer.echo(found.sentence(bundle))
    Console().print(_table(card, lines))


def _bodies(path: Path | None, card: ModelCard) -> list[BaseModel]:
    """Validated requests.

    Raises:
        UsageError: the file cannot be read, is empty, or a line is no request of the task.
    """
    kind = TASKS[card.task].request_type
    if path is None:
        return [kind.model_validate(card.example)]
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--requests {path} cannot be read: {error}") from None
    if not lines:
        raise UsageError(f"--requests {path} is empty; write one JSON object a line")
    bodies = []
    for number, line in enumerate(lines, 1):
        try:
            bodies.append(kind.model_validate_json(line))
        except ValidationError as error:
            first = error.errors()[0]
            field = "/".join(map(str, first["loc"])) or "the line"
            raise UsageError(f"--requests {path} line {number}: {field}: {first['msg']}") from None
    return bodies


@dataclass(frozen=True, slots=True, eq=False)
class _Bench:
    """Measures one model; `done` is told of every measurement."""

    settings: Settings
    card: ModelCard
    bodies: Sequence[BaseModel]
    seconds: float
    done: Callable[[str], None]

    def measure(self, counts: Sequence[int]) -> list[Line]:
        """A line for each number of callers."""
        each = self._slots_of_a_request()
        alone = [self._alone(callers, min(self.settings.slots, callers * each)) for callers in counts]
        engine = asyncio.run(self._through_engine(counts))
        over_http = asyncio.run(self._over_http(counts))
        return [Line(*line) for line in zip(counts, alone, engine, over_http, strict=True)]

    def _slots_of_a_request(self) -> int:
        """Slots that the rows of one request take side by side, at most."""
        loaded = self._load(self.settings.slots)
        return max(
            1, *(sum(loaded.model.cost(row).slots for row in next(loaded.task.solve(body), ())) for body in self.bodies)
        )

    def _load(self, slots: int) -> Loaded:
        bundle, threads = self.settings.models[0].bundle, self.settings.threads
        return load(bundle, precision=self.card.precision, slots=slots, threads=threads)

    def _alone(self, callers: int, slots: int) -> Speed:
        """As many requests at once as there are callers, all known in advance, without engine or events."""
        loaded = self._load(slots)
        turn = list(islice(cycle(self.bodies), callers * REQUESTS_OF_A_CALLER))
        list(answer_all(loaded, turn[:callers]))
        began, answered = time.perf_counter(), 0
        while time.perf_counter() - began < self.seconds:
            answered += len(list(answer_all(loaded, turn)))
        speed = Speed(answered / (time.perf_counter() - began))
        self.done(f"{callers} callers, the model alone")
        return speed

    async def _through_engine(self, counts: Sequence[int]) -> list[Speed]:
        host = await asyncio.to_thread(LocalHost, self.settings)
        try:
            await host.start()

            async def ask(number: int) -> None:
                deadline = time.monotonic() + ANSWER_TIMEOUT_S
                await host.answer(Call(self.card, self.bodies[number % len(self.bodies)], deadline))

            return [await self._speed(ask, callers, "through the engine") for callers in counts]
        finally:
            host.stop()

    async def _over_http(self, counts: Sequence[int]) -> list[Speed]:
        contents = [to_json(body, exclude_none=True) for body in self.bodies]
        headers = {"Content-Type": "application/json"}
        with _served(self.settings) as url:
            limits = httpx.Limits(max_connections=max(counts))
            async with httpx.AsyncClient(base_url=url, timeout=ANSWER_TIMEOUT_S, limits=limits) as http:

                async def ask(number: int) -> None:
                    content = contents[number % len(contents)]
                    answer = await http.post(self.card.routes[0], content=content, headers=headers)
                    if not answer.is_success:
                        raise UsageError(f"the bundle answers {answer.status_code} to a request: {answer.text}")

                return [await self._speed(ask, callers, "over HTTP") for callers in counts]

    async def _speed(self, ask: Ask, callers: int, what: str) -> Speed:
        await ask(0)
        latencies_s: list[float] = []
        began = time.perf_counter()

        async def caller(first: int) -> None:
            number = first
            while (asked_at := time.perf_counter()) - began < self.seconds:
                await ask(number)
                latencies_s.append(time.perf_counter() - asked_at)
                number += callers

        await asyncio.gather(*(caller(first) for first in range(callers)))
        took_s = time.perf_counter() - began
        self.done(f"{callers} callers, {what}")
        p50_ms, p99_ms = 1e3 * np.quantile(latencies_s, (0.5, 0.99))
        return Speed(len(latencies_s) / took_s, float(p50_ms), float(p99_ms))


@contextlib.contextmanager
def _served(settings: Settings) -> Iterator[str]:
    """`heedful serve --runtime embedded` in a process of its own.

    Raises:
        StartError: it does not become ready.
    """
    port = next(free_ports())
    with tempfile.TemporaryDirectory(prefix="heedful-bench-") as folder:
        config = Path(folder) / "heedful.yaml"
        model = {"bundle": str(settings.models[0].bundle)}
        config.write_text(yaml.safe_dump({"models": [model], "threads": settings.threads, "log_level": "warning"}))
        command = ["serve", "--runtime", "embedded", "--config", str(config), "--port", str(port)]
        process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-P", "-m", "service", *command], stdout=subprocess.DEVNULL
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(process, url)
            yield url
        finally:
            process.terminate()
            process.wait()


def _wait(process: "subprocess.Popen[bytes]", url: str) -> None:
    give_up = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < give_up:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz").is_success:
                return
        time.sleep(0.05)
    raise StartError(f"the service to measure was not ready within {START_TIMEOUT_S} s; try heedful check first")


def _table(card: ModelCard, lines: Sequence[Line]) -> Table:
    title = f"{card.name}, {card.task}, {card.precision}: answers per second; p50 / p99 in ms"
    table = Table(title=title, title_justify="left")
    for column in ("callers", "model alone", "engine", "p50 / p99", "HTTP", "p50 / p99", "HTTP ÷ model"):
        table.add_column(column, justify="right")
    for line in lines:
        cells = [str(line.callers), f"{line.alone.requests_per_s:,.1f}"]
        for speed in (line.engine, line.http):
            cells += [f"{speed.requests_per_s:,.1f}", f"{speed.p50_ms:,.1f} / {speed.p99_ms:,.1f}"]
        table.add_row(*cells, f"{line.http.requests_per_s / line.alone.requests_per_s:.2f}")
    return table
