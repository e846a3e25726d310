"""What the waves make of their samples; and their users ask as often as they should and tell of every request."""

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from loadtests.measured_wave import COLUMNS, Seen, Wave, draw
from loadtests.results import put_between
from loadtests.waves import BEGIN, END, PAGE, table
from tests.serving import Service, start, stop

ROOT = Path(__file__).parents[2]
WAVE = Wave(calm_per_s=10, high_per_s=20, calm_s=10, high_s=10, after_s=5)
CLOCK_S = 1_000_000.0
LONG = "I do not know where she lives and whether somebody in this house can help me find the keys that I lost"


def told() -> Iterator[tuple[str, str, str]]:
    """Sent ten times a second; in the wave every second one is refused, and one is lost at the end."""
    for tenth in range(250):
        at_s, is_high = tenth / 10, 100 <= tenth < 200
        became = "lost" if tenth == 249 else "refused" if is_high and tenth % 2 else "answered"
        took_s = 0.001 if became == "refused" else 2.0 if is_high else 0.5
        yield f"{CLOCK_S + at_s}", f"{took_s}", became


def ready() -> list[tuple[float, int]]:
    """A second replica from 14 to 21 s, and a look that came when all was over."""
    return [(CLOCK_S + second, 2 if 14 <= second < 21 else 1) for second in range(-1, 25)] + [(CLOCK_S + 26, 7)]


def seen() -> Seen:
    return Seen.of(WAVE, reversed(list(told())), ready())


def test_a_wave_says_how_many_requests_come_at_each_time() -> None:
    assert [WAVE.per_s(at_s) for at_s in (0, 9.9, 10, 19.9, 20, 24.9, 25)] == [10, 10, 20, 20, 10, 10, None]


def test_windows_hold_the_requests_that_were_sent_in_them() -> None:
    assert [(at_s, came, refused, round(p95_s or 0, 3)) for at_s, came, refused, p95_s in seen().windows()] == [
        (2.5, 10.0, 0.0, 0.5),
        (7.5, 10.0, 0.0, 0.5),
        (12.5, 10.0, 5.0, 2.0),
        (17.5, 10.0, 5.0, 2.0),
        (22.5, 10.0, 0.0, 0.5),
    ]


def test_a_line_of_the_table_counts_refusals_losses_and_ready_replicas() -> None:
    assert dict(zip(COLUMNS, ("by backlog", *seen().cells()), strict=True)) == {
        "policy": "by backlog",
        "replicas: before → most → at the end": "1 → 2 → 1",
        "the second answers after": "4 s",
        "p95, calm": "500 ms",
        "p95, wave": "2,000 ms",
        "p95, worst 5 s": "2,000 ms",
        "refused": "20.00%",
        "lost": "1",
        "replicas × time": "32 s",
    }


@pytest.mark.parametrize(("from_s", "expected"), [(3, "before the wave"), (10, "0 s"), (30, "-")])
def test_when_the_second_replica_answered_is_told_from_the_wave_on(from_s: float, expected: str) -> None:
    replicas = [(CLOCK_S + second, 2 if second >= from_s else 1) for second in range(25)]
    assert Seen.of(WAVE, told(), replicas).cells()[1] == expected


def test_replicas_count_from_the_first_request_on() -> None:
    replicas = [(CLOCK_S - 5, 1), (CLOCK_S - 3, 2)]
    assert Seen.of(WAVE, told(), replicas).replica_s() == 2 * WAVE.until_s


def test_no_request_is_no_measurement() -> None:
    with pytest.raises(ValueError, match="no request"):
        Seen.of(WAVE, [], ready())


def test_table_and_picture_are_made_of_every_policy_and_fit_the_page(tmp_path: Path) -> None:
    found = {"one replica": Seen.of(WAVE, told(), [(CLOCK_S, 1)]), "by backlog": seen()}
    shown = table(found, is_quick=True)
    assert "10.0 requests/s, 20.0 for 10 s in the wave. Shortened" in shown
    assert "| one replica | 1 → 1 → 1 | - |" in shown
    page = tmp_path / PAGE
    page.write_text((ROOT / "docs" / PAGE).read_text(encoding="utf-8"), encoding="utf-8")
    put_between(page, BEGIN, END, shown)
    assert f"{BEGIN}\n{shown}\n{END}" in page.read_text(encoding="utf-8")
    for name in ("first.svg", "second.svg"):
        draw(found, tmp_path / name)
    assert (tmp_path / "first.svg").read_bytes() == (tmp_path / "second.svg").read_bytes()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """It answers one text at a time, so that some are refused."""
    log = tmp_path_factory.mktemp("waves") / "log"
    running = start("embedded", log, HEEDFUL_SLOTS="1", HEEDFUL_LIMITS__MAX_WAITING_ROWS="1")
    yield running
    stop(running)


def test_users_ask_as_often_as_the_wave_wants_and_tell_of_every_request(service: Service, tmp_path: Path) -> None:
    wave = Wave(calm_per_s=10, high_per_s=40, calm_s=2, high_s=2, after_s=1)
    bodies, lines = tmp_path / "bodies.json", tmp_path / "told.csv"
    wrong = {"inputs": "a text", "parameters": {"unknown": 1}}
    bodies.write_text(json.dumps([{"inputs": LONG}] * 9 + [wrong]))
    options = ["--wave", json.dumps(asdict(wave)), "--bodies", str(bodies), "--told", str(lines)]
    command = [sys.executable, "-m", "locust", "--headless", "-f", "loadtests/wave_users.py", "--host", service.url]
    subprocess.run([*command, *options, "--stop-timeout", "5"], capture_output=True, timeout=60, check=False, cwd=ROOT)
    found = list(csv.reader(lines.read_text().splitlines()))
    assert {became for *_, became in found} == {"answered", "refused", "lost"}
    outcomes = Seen.of(wave, found, []).outcomes
    calm = sum(outcome.asked_s < 2 for outcome in outcomes)
    high = sum(2 <= outcome.asked_s < 4 for outcome in outcomes)
    assert calm == pytest.approx(20, rel=0.5)
    assert high == pytest.approx(80, rel=0.3)
