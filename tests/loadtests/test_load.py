"""The load test holds a service to its objectives, and its parts are what they say."""

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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
