"""What callers are told whose requests the stable version sends to a canary that is there, fails, or is away."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster

TOLD = {
    "answer: fine": "canary",
    "answer: invalid": "InvalidInput",
    "answer: not ready": "stable",
    "answer: draining": "stable",
    "answer: broken": "stable",
    "answer: unreadable": "stable",
    "answer: silent": "DeadlinePassed",
    "answer: dies": "stable",
    "answer: none": "stable",
    "answer: none and little time": "stable",
    "stream: hung up": "cancelled",
    "stream: fine": "canary canary end",
    "stream: invalid": "InvalidInput",
    "stream: not ready": "stable end",
    "stream: draining": "stable end",
    "stream: broken": "stable end",
    "stream: unreadable": "stable end",
    "stream: silent": "DeadlinePassed",
    "stream: silent later": "canary DeadlinePassed",
    "stream: broken later": "canary Broken",
    "stream: dies later": "canary ActorUnavailableError",
    "stream: none": "stable end",
    "stream: none and little time": "stable end",
    "all were noticed": "True",
}


@pytest.fixture(scope="module")
def told() -> dict[str, str]:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.cluster.canaries"],
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "RAY_SERVE_ENABLE_HA_PROXY": "0"},
    )
    assert ended.returncode == 0, ended.stderr
    found: dict[str, str] = json.loads(ended.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("what", TOLD)
def test_the_stable_version_answers_what_the_canary_cannot_unless_it_has_spoken(
    told: dict[str, str], what: str
) -> None:
    assert told[what] == TOLD[what]
