"""The load test holds a service to its objectives, and its parts are what they say."""

import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar
from urllib.parse import urlsplit

import pytest

from loadtests.objectives import Latency, Measured, Objectives, judge, read_objectives
from loadtests.shapes import SHAPES, users_at
from loadtests.traffic import REQUESTS
from models.tasks import TASKS
from tests.serving import Service, start, stop

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    running = start("embedded", tmp_path_factory.mktemp("load") / "log")
    yield running
    stop(running)


def locust(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        str(Path(sys.executable).with_name("locust")),
        "--headless",
        "-f",
        "loadtests/locustfile.py",
        "--host",
        url,
    ]
    return subprocess.run(
        [*command, "--peak", "4", "--seconds", "3", *arguments],
        capture_output=True, text=True, timeout=120, check=False, cwd=ROOT,
    )  # fmt: skip


def test_a_run_ends_with_a_report_and_a_verdict(service: Service, tmp_path: Path) -> None:
    objectives = tmp_path / "objectives.yaml"
    objectives.write_text("tasks: {translation: {p95_ms: 60000}}")
    ran = locust(service.url, "--html", str(tmp_path / "report.html"), "--objectives", str(objectives))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "kept   failed, share: 0, at most 0" in ran.stdout
    assert "translation p95" in ran.stdout
    assert "recommendation" in (tmp_path / "report.html").read_text()


def test_a_missed_objective_is_an_exit_status(service: Service, tmp_path: Path) -> None:
    objectives = tmp_path / "objectives.yaml"
    objectives.write_text("tasks: {translation: {p50_ms: 0.001}}")
    ran = locust(service.url, "--objectives", str(objectives))
    assert ran.returncode == 1
    assert "MISSED translation p50" in ran.stdout


def test_no_service_is_one_sentence() -> None:
    ran = locust("http://127.0.0.1:9")
    assert ran.returncode != 0
    assert "no ready Heedful at http://127.0.0.1:9" in ran.stderr
    assert "Traceback" not in ran.stderr


class Stub(BaseHTTPRequestHandler):
    """A service that answers everything, but for what `answers` says: a status, or seconds until the answer."""

    answers: ClassVar[dict[str, float]] = {}

    def do_GET(self) -> None:
        found = self.answers.get(urlsplit(self.path).path, 200)
        if found < 100:
            time.sleep(found)
        self.send_response(200 if found < 100 else int(found))
        body = b'[{"item": "a"}]'
        self.send_header("Content-Length", str(len(body)))
        if found in {429, 503}:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Not to the terminal."""


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """A load test of a service that does so."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    Thread(target=server.serve_forever, daemon=True).start()

    def tested(answers: dict[str, float], *arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(Stub, "answers", answers)
        return locust(f"http://127.0.0.1:{server.server_port}", *arguments)

    yield tested
    server.shutdown()
    server.server_close()


ALL = tuple(f"/v1/{task}" for task in REQUESTS)
Tested = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def lenient(tmp_path: Path) -> tuple[str, str]:
    """Asks for nothing but answers."""
    (tmp_path / "objectives.yaml").write_text("max_refused_share: 1")
    return ("--objectives", str(tmp_path / "objectives.yaml"))


def test_a_service_that_hangs_has_failed(stub: Tested, lenient: tuple[str, str]) -> None:
    ran = stub(dict.fromkeys(ALL[:1], 20), *lenient, "--stop-timeout", "1", "Translator", "Reader")
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "MISSED failed, share: 0." in ran.stdout
    assert "no answer when the run ended" in ran.stderr


def test_answers_that_are_under_way_at_the_end_are_waited_for(stub: Tested, lenient: tuple[str, str]) -> None:
    ran = stub(dict.fromkeys(ALL, 5), *lenient)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "kept   failed, share: 0, at most 0" in ran.stdout


def test_a_task_of_which_everything_is_refused_is_in_the_verdict(stub: Tested, lenient: tuple[str, str]) -> None:
    ran = stub({ALL[0]: 503}, *lenient)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (share,) = re.findall(r"^kept   refused, share: (\S+), at most 1$", ran.stdout, re.MULTILINE)
    assert 0 < float(share) < 1


def test_a_service_without_items_has_failed(stub: Tested, lenient: tuple[str, str]) -> None:
    ran = stub({"/v1/recommendation/items": 500}, *lenient)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "MISSED failed, share: 0." in ran.stdout
    assert "Traceback" not in ran.stderr


def test_a_user_that_raises_has_failed(stub: Tested, lenient: tuple[str, str], tmp_path: Path) -> None:
    raising = tmp_path / "raising.py"
    raising.write_text(
        "from loadtests import locustfile\nfrom loadtests.locustfile import *\n"
        "locustfile.REQUESTS['translation'] = lambda draws, items: 1 / 0\n"
    )
    ran = stub({}, *lenient, "-f", str(raising))
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "MISSED failed, share: 0." in ran.stdout


def test_a_wrong_objective_is_named(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("tasks: {translation: {p95: 3}}")
    with pytest.raises(ValueError, match=r"wrong\.yaml: tasks\.translation\.p95: .*got 3"):
        read_objectives(path)


def test_shares_are_of_all_requests_and_silence_is_no_success() -> None:
    measured = {
        "translation": Measured(answered=90, refused=6, failed=2, percentiles_ms={50: 10.0, 95: 20.0, 99: 30.0}),
        "recommendation": Measured(answered=0, refused=2, failed=0, percentiles_ms={50: 0.0, 95: 0.0, 99: 0.0}),
    }
    tasks = {name: Latency(p95_ms=20) for name in ("translation", "recommendation", "summarization")}
    verdicts = judge(Objectives(max_failed_share=0.02, max_refused_share=0.05, tasks=tasks), measured)
    assert [(verdict.name, verdict.measured, verdict.kept) for verdict in verdicts] == [
        ("failed, share", 0.02, True),
        ("refused, share", 0.08, False),
        ("translation p95, ms", 20.0, True),
        ("recommendation p95, ms", float("inf"), False),
        ("summarization p95, ms", float("inf"), False),
    ]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_stays_between_one_user_and_the_peak(shape: str) -> None:
    users = [users_at(shape, moment / 100, 50) for moment in range(100)]
    assert 1 <= min(users) <= max(users) <= 50
    assert max(users) == (40 if shape == "soak" else 50)


@pytest.mark.parametrize("task", REQUESTS)
def test_requests_are_valid_varied_and_repeatable(task: str) -> None:
    def drawn() -> list[dict[str, object]]:
        draw = random.Random(3)
        return [REQUESTS[task](draw, ["22423", "85123A", "21733"]) for _ in range(20)]

    assert drawn() == drawn()
    assert len({str(body) for body in drawn()}) > 10
    for body in drawn():
        TASKS[task].request_type.model_validate(body)
