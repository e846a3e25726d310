"""Locust users for every task, whose number follows a shape, and a verdict by objectives at the end.

example: locust --headless -f loadtests/locustfile.py --host http://127.0.0.1:8000 --shape spike --peak 20 --seconds 60
"""

import random
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any, cast

import locust
import requests
from locust import FastHttpUser, LoadTestShape, between, events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from loadtests.objectives import Measured, judge, read_objectives
from loadtests.shapes import SHAPES, users_at
from loadtests.traffic import REQUESTS

OBJECTIVES = Path(__file__).with_name("objectives.yaml")
PERCENTILES = (50, 95, 99)
REFUSED = (429, 503)
LONGEST_WAIT_S = 5.0
ITEMS = 100


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def _options(parser: LocustArgumentParser) -> None:
    group = parser.add_argument_group("Heedful")
    group.add_argument("--shape", choices=sorted(SHAPES), default="steady", help="how the number of users changes")
    group.add_argument("--peak", type=int, default=20, help="users at the peak")
    group.add_argument("--seconds", type=float, default=60.0, help="how long the run takes")
    group.add_argument("--objectives", default=str(OBJECTIVES), help="YAML file with what the service is held to")
    group.add_argument("--seed", type=int, default=0, help="of the requests")


@events.init.add_listener  # type: ignore[untyped-decorator]
def _ready(environment: Environment, **_: Any) -> None:
    """End with one sentence where no service answers, or where the objectives cannot be read."""
    try:
        read_objectives(Path(_given(environment).objectives))
        requests.get(f"{environment.host}/readyz", timeout=10).raise_for_status()
    except ValueError as error:
        sys.exit(f"error: {error}")
    except requests.RequestException:
        sys.exit(
            f"error: no ready Heedful at {environment.host}: start one by `make serve`, or name another with --host"
        )


def _given(environment: Environment) -> Namespace:
    return cast("Namespace", environment.parsed_options)


class Wave(LoadTestShape):
    """The chosen shape."""

    def tick(self) -> tuple[int, float] | None:
        """Users now, and as many a second as it takes to follow."""
        if self.runner is None:
            return None
        options = _given(self.runner.environment)
        progress = self.get_run_time() / options.seconds  # type: ignore[no-untyped-call]
        return None if progress >= 1 else (users_at(options.shape, progress, options.peak), float(options.peak))


class _Caller(FastHttpUser):
    """Asks one task, reads the answer for a moment, and asks again; waits as long as a refusal asks, up to 5 s."""

    abstract = True
    task_name = ""
    wait_time = between(0.1, 0.9)
    draws: random.Random
    items: list[str]
    started = 0

    def on_start(self) -> None:
        """Every user draws requests of its own, the same in each run."""
        _Caller.started += 1
        self.draws = random.Random(f"{_given(self.environment).seed} {_Caller.started}")  # noqa: S311
        self.items = []
        if self.task_name == "recommendation":
            with self.rest("GET", f"/v1/recommendation/items?limit={ITEMS}", name="items") as found:
                self.items = [entry["item"] for entry in found.js]

    @locust.task
    def ask(self) -> None:
        """One request; a refusal with `Retry-After` is counted by itself and is not a failure."""
        body = REQUESTS[self.task_name](self.draws, self.items)
        pause_s = 0.0
        with self.client.post(f"/v1/{self.task_name}", json=body, name=self.task_name, catch_response=True) as answer:
            if answer.status_code in REFUSED and "retry-after" in answer.headers:
                answer.request_meta["name"] = f"{self.task_name}, refused"
                answer.success()
                pause_s = min(float(answer.headers["retry-after"]), LONGEST_WAIT_S)
        if pause_s:
            time.sleep(pause_s)


class Translator(_Caller):
    """Short texts, mostly one or two sentences."""

    task_name, weight = "translation", 4


class Reader(_Caller):
    """Abstracts of about five sentences."""

    task_name, weight = "summarization", 2


class Asker(_Caller):
    """Questions about paragraphs of about six sentences."""

    task_name, weight = "question-answering", 3


class Shopper(_Caller):
    """Histories of about eight items."""

    task_name, weight = "recommendation", 3


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def _verdict(environment: Environment, **_: Any) -> None:
    """Print every objective beside what was measured; one that is missed makes the exit status 1."""
    entries = environment.stats.entries
    measured = {}
    for task in REQUESTS:
        if (entry := entries.get((task, "POST"))) is None:
            continue
        refused = entries.get((f"{task}, refused", "POST"))
        measured[task] = Measured(
            answered=entry.num_requests - entry.num_failures,
            refused=refused.num_requests if refused is not None else 0,
            failed=entry.num_failures,
            percentiles_ms={share: float(entry.get_response_time_percentile(share / 100)) for share in PERCENTILES},
        )
    verdicts = judge(read_objectives(Path(_given(environment).objectives)), measured)
    for verdict in verdicts:
        sign = "kept  " if verdict.kept else "MISSED"
        print(f"{sign} {verdict.name}: {verdict.measured:.4g}, at most {verdict.limit:.4g}")
    environment.process_exit_code = 0 if measured and all(verdict.kept for verdict in verdicts) else 1
