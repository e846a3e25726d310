"""Locust users for every task, whose number follows a shape, and a verdict by objectives at the end.

example: locust --headless -f loadtests/locustfile.py --host http://127.0.0.1:8000 --shape spike --peak 20 --seconds 60
"""

import random
import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import locust
import requests
from gevent import GreenletExit  # type: ignore[import-untyped]
from locust import FastHttpUser, LoadTestShape, between, events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from loadtests.objectives import Measured, judge, read_objectives
from loadtests.shapes import SHAPES, users_at
from loadtests.traffic import REQUESTS

OBJECTIVES = Path(__file__).with_name("objectives.yaml")
PERCENTILES = (50, 95, 99)
REFUSED = (429, 503)
OF_REFUSED = ", refused"
LONGEST_WAIT_S = 5.0
ITEMS = 100
STOP_TIMEOUT_S = 65
"""What is under way at the end gets an answer, or a failure, as at any other time: above the 60 s after which the
service ends a request by default, and Locust gives one up.
"""


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def _options(parser: LocustArgumentParser) -> None:
    group = parser.add_argument_group("Heedful")
    group.add_argument("--shape", choices=sorted(SHAPES), default="steady", help="how the number of users changes")
    group.add_argument("--peak", type=int, default=20, help="users at the peak")
    group.add_argument("--seconds", type=float, default=60.0, help="how long the run takes")
    group.add_argument("--objectives", default=str(OBJECTIVES), help="YAML file with what the service is held to")
    group.add_argument("--seed", type=int, default=0, help="of the requests")
    parser.set_defaults(stop_timeout=STOP_TIMEOUT_S)


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

    @locust.task
    def ask(self) -> None:
        """One request; of a shopper the first one is for the items, until it gets some."""
        if self.task_name == "recommendation" and not self.items:
            found = self._answer("GET", f"/v1/recommendation/items?limit={ITEMS}", "items")
            self.items = [entry["item"] for entry in found] if found else []
            return
        self._answer("POST", f"/v1/{self.task_name}", self.task_name, REQUESTS[self.task_name](self.draws, self.items))

    def _answer(self, method: str, path: str, name: str, body: object = None) -> Any:
        """The answer, None where there is none; a refusal with `Retry-After` is counted by itself and is not a failure.

        Locust ends users who wait longer than it does at the end without a word: for these it is said here.
        """
        began = time.monotonic()
        pause_s = 0.0
        found = None
        try:
            with self.client.request(method, path, name=name, json=body, catch_response=True) as answer:
                if answer.status_code in REFUSED and "retry-after" in answer.headers:
                    answer.request_meta["name"] = name + OF_REFUSED
                    answer.success()
                    pause_s = min(float(answer.headers["retry-after"]), LONGEST_WAIT_S)
                elif answer.status_code < 400:
                    found = answer.json()
        except GreenletExit:
            waited_s = time.monotonic() - began
            # A user who pauses at the end is ended at once, and may have begun to ask in that very moment.
            if waited_s >= self.environment.stop_timeout / 2:
                late = TimeoutError("no answer when the run ended")
                told = {"response_time": waited_s * 1e3, "response_length": 0, "exception": late, "context": {}}
                self.environment.events.request.fire(request_type=method, name=name, **told)
            raise
        if pause_s:
            time.sleep(pause_s)
        return found


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
    measured = _measured(environment)
    verdicts = judge(read_objectives(Path(_given(environment).objectives)), measured)
    for verdict in verdicts:
        sign = "kept  " if verdict.kept else "MISSED"
        print(f"{sign} {verdict.name}: {verdict.measured:.4g}, at most {verdict.limit:.4g}")
    environment.process_exit_code = 0 if measured and all(verdict.kept for verdict in verdicts) else 1


def _measured(environment: Environment) -> Mapping[str, Measured]:
    """Every entry of Locust's statistics; a user that raised an exception has failed, too."""
    entries = environment.stats.entries
    measured = {}
    for name in dict.fromkeys(name.removesuffix(OF_REFUSED) for name, _ in entries):
        answered, refused = (
            [entry for (each, _), entry in entries.items() if each == wanted] for wanted in (name, name + OF_REFUSED)
        )
        failed = sum(entry.num_failures for entry in answered)
        measured[name] = Measured(
            answered=sum(entry.num_requests for entry in answered) - failed,
            refused=sum(entry.num_requests for entry in refused),
            failed=failed,
            percentiles_ms={
                share: float(entry.get_response_time_percentile(share / 100))
                for entry in answered
                for share in PERCENTILES
            },
        )
    if environment.runner is not None and (raised := environment.runner.exceptions):
        measured["users"] = Measured(0, 0, sum(each["count"] for each in raised.values()), {})
    return measured
