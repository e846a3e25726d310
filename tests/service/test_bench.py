"""The bench command on a small bundle: what it prints, what it keeps, and what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.bundle import read_manifest
from models.load import load
from service.tune import BUDGETS, Tuned, store
from tests.tiny import write_bundle


def bench(bundle: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service", "bench", str(bundle), "--seconds", "0.1", *arguments],
        capture_output=True,
        check=False,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "PORT"},
        timeout=120,
    )


def test_it_measures_three_ways_and_keeps_what_it_tuned(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "tiny", "tiny")
    run = bench(bundle, "--callers", "1", "--callers", "4", "--tune", "--json")
    assert run.returncode == 0, run.stderr
    printed = json.loads(run.stdout)
    assert [line["callers"] for line in printed["lines"]] == [1, 4]
    for line in printed["lines"]:
        assert line["alone"]["requests_per_s"] > 0
        assert line["alone"]["p99_ms"] is None
        for way in ("engine", "http"):
            assert line[way]["requests_per_s"] > 0
            assert 0 < line[way]["p50_ms"] <= line[way]["p99_ms"]
    kept = read_manifest(bundle).budget_tokens
    assert kept == {printed["budget_tokens"]["device"]: printed["budget_tokens"]["budget_tokens"]}
    assert set(kept.values()) <= set(BUDGETS)


def test_what_was_tuned_is_what_a_pass_takes_on_that_device_alone(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "tiny", "tiny")
    store(bundle, Tuned("cpu", 128, {}))
    store(bundle, Tuned("cuda", 2048, {}))
    assert read_manifest(bundle).budget_tokens == {"cpu": 128, "cuda": 2048}
    assert load(bundle).model.room().tokens == 128
    assert load(bundle, budget_tokens=64).model.room().tokens == 64


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        ("", "is empty; write one JSON object a line"),
        ('{"inputs": {"history": ["i1"]}}\n{"inputs": 1}', "line 2: inputs: "),
    ],
)
def test_a_file_of_requests_that_cannot_be_used_is_one_sentence(tmp_path: Path, content: str | None, said: str) -> None:
    bundle, requests = write_bundle(tmp_path / "tiny", "tiny"), tmp_path / "requests.jsonl"
    if content is not None:
        requests.write_text(content)
    run = bench(bundle, "--requests", str(requests))
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    assert line.startswith(f"heedful: --requests {requests}")
    assert said in line
