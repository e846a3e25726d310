"""Locust users who ask just as often when answers are slow or refused, so that policies of scaling meet the same wave.

`python -m loadtests.waves` starts them. Every request is a line of a file: when it was sent, the seconds that it took,
and what became of it.
"""

import csv
import json
import random
import time
from argparse import Namespace
from itertools import count
from pathlib import Path
from typing import Any, cast

import locust
from locust import FastHttpUser, LoadTestShape, events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from loadtests.measured_wave import ANSWERED, LOST, REFUSED, Wave
from loadtests.peers.traffic import ROUTE

PERIOD_S = 10.0
"""From one request of a user to the next, in the mean: more than answers take, or slow ones would lower the demand."""
REFUSALS = (429, 503)


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def _options(parser: LocustArgumentParser) -> None:
    group = parser.add_argument_group("Heedful")
    group.add_argument("--wave", required=True, help="a `Wave`, as JSON")
    group.add_argument("--bodies", required=True, help="a file with the bodies of requests, a JSON list")
    group.add_argument("--told", required=True, help="a file for what becomes of each")


@events.init.add_listener  # type: ignore[untyped-decorator]
def _ready(environment: Environment, **_: Any) -> None:
    given = _given(environment)
    _Caller.bodies = json.loads(Path(given.bodies).read_text(encoding="utf-8"))
    told = Path(given.told).open("w", encoding="utf-8", newline="")  # noqa: SIM115 - open until the process ends
    writer = csv.writer(told)

    def tell(name: str, start_time: float, response_time: float, exception: Exception | None, **_: Any) -> None:
        became = LOST if exception is not None else name
        writer.writerow((f"{start_time:.4f}", f"{response_time / 1e3:.4f}", became))

    events.request.add_listener(tell)  # type: ignore[no-untyped-call]
    events.quit.add_listener(lambda **_: told.close())  # type: ignore[no-untyped-call]


def _given(environment: Environment) -> Namespace:
    return cast("Namespace", environment.parsed_options)


class Shape(LoadTestShape):
    """As many users as the wave has requests for in a period; all that are missing come at once."""

    def tick(self) -> tuple[int, float] | None:
        """Users now, and how many of them may come in a second."""
        if self.runner is None:
            return None
        wave = Wave(**json.loads(_given(self.runner.environment).wave))
        per_s = wave.per_s(self.get_run_time())  # type: ignore[no-untyped-call]
        if per_s is None:
            return None
        return round(per_s * PERIOD_S), wave.high_per_s * PERIOD_S


class _Caller(FastHttpUser):
    """Asks at random moments (Poisson), the same in each run; those that passed during an answer, right after it."""

    bodies: list[dict[str, Any]]
    started = count()

    def on_start(self) -> None:
        """Every user draws moments and texts of its own."""
        self.draws = random.Random(next(_Caller.started))  # noqa: S311 - which text is asked is no secret
        self.due_s = time.monotonic()
        time.sleep(self.wait_time())

    def wait_time(self) -> float:
        """Until the next request is due."""
        self.due_s += self.draws.expovariate(1 / PERIOD_S)
        return max(0.0, self.due_s - time.monotonic())

    @locust.task
    def ask(self) -> None:
        """One request."""
        body = self.draws.choice(self.bodies)
        with self.client.post(ROUTE, json=body, name=ANSWERED, catch_response=True) as answer:
            if answer.status_code in REFUSALS and "retry-after" in answer.headers:
                answer.request_meta["name"] = REFUSED
                answer.success()
