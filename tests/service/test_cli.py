"""The heedful command: answers on the terminal, and one sentence with exit code 2 for what its user can mend."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from models.bundle import MANIFEST
from tests.models.embedded import RECOMMENDATION
from tests.serving import free_port
from tests.tiny import write_bundle

COMMANDS = (
    *("serve", "run", "models", "export", "check", "bench"),
    *("config", "environment", "deploy", "remove", "rollback"),
)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    quality = {"metric": "HR@10", "value": 0.25, "dataset": "a test", "command": "pytest"}
    write_bundle(folder / "b", "beside", languages={"source": [f"l{index}" for index in range(20)]})
    write_bundle(folder / "a", "first", quality=[quality], languages={"source": ["en"], "target": ["fr"]})
    return folder


def heedful(bundles: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PORT"}
    return subprocess.run(
        [sys.executable, "-m", "service", *arguments],
        capture_output=True,
        check=False,
        text=True,
        env={**environment, "HEEDFUL_BUNDLES": str(bundles), "COLUMNS": "200"},
        timeout=60,
    )


def sentence(run: subprocess.CompletedProcess[str]) -> str:
    """The one line that a failed command prints."""
    assert run.returncode == 2, run.stderr
    assert run.stdout == ""
    (line,) = run.stderr.splitlines()
    assert line.startswith("heedful: ")
    return line


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_helps_with_an_example(bundles: Path, command: str) -> None:
    run = heedful(bundles, command, "--help")
    assert run.returncode == 0
    assert f"heedful {command}" in run.stdout.partition("Example: ")[2]


def test_help_lists_the_commands(bundles: Path) -> None:
    run = heedful(bundles, "--help")
    assert all(command in run.stdout for command in COMMANDS)


def test_run_answers_with_the_first_model_of_the_task(bundles: Path) -> None:
    run = heedful(bundles, "run", "recommendation", "i1", "i2")
    assert run.returncode == 0, run.stderr
    answers = [line.split("\t") for line in run.stdout.splitlines()]
    assert len(answers) == 10
    assert all(title == f"Thing {item[1:]}" for item, title, _ in answers)
    scores = [float(score) for _, _, score in answers]
    assert scores == sorted(scores, reverse=True)
    assert {"i1", "i2"}.isdisjoint(item for item, _, _ in answers)


def test_models_shows_what_the_cards_say(bundles: Path) -> None:
    run = heedful(bundles, "models")
    assert run.returncode == 0, run.stderr
    first = next(line for line in run.stdout.splitlines() if " first " in line)
    assert all(
        word in first for word in ("recommendation", "fp32", "en → fr", "1000 items", "HR@10 0.25 on a test", "4.2 MB")
    )
    assert "l0, l1, l2, l3, l4, l5, l6, l7 and 12 more" in next(
        line for line in run.stdout.splitlines() if " beside " in line
    )


def test_check_answers_the_example_in_every_precision(bundles: Path) -> None:
    run = heedful(bundles, "check", str(bundles / "a"))
    assert run.returncode == 0, run.stderr
    assert "first 1: 2 files hash to what the manifest says" in run.stdout
    assert 'the graphs match their signatures; {"inputs": {"history": ["i1"]}}' in run.stdout
    assert run.stdout.count("→ i") == 10
    assert "fp32: the bundle carries no answers of its checkpoint to compare with" in run.stdout
    assert run.stdout.endswith(f"{bundles / 'a'} is whole: serve it with HEEDFUL_BUNDLES={bundles} heedful serve\n")


def test_check_names_the_file_with_the_flipped_byte(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle", "flipped")
    graph = bytearray((folder / "forward.onnx").read_bytes())
    graph[1000] ^= 1
    (folder / "forward.onnx").write_bytes(graph)
    for arguments in (("check", str(folder)), ("serve",), ("run", "recommendation", "i1")):
        line = sentence(heedful(tmp_path, *arguments))
        assert "forward.onnx: sha256 " in line
        assert "restore the bundle" in line


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ({"task": "poetry"}, "task 'poetry' is unknown, this release has translation, summarization"),
        (
            {"example": {"inputs": {"history": "i1"}}},
            "field example.inputs.history is not of a recommendation request: Input should be a valid list;",
        ),
        ({"example": {"inputs": {"history": ["x"]}}}, "cannot answer its own example: inputs/history/0 must be one of"),
    ],
)
def test_check_says_what_is_wrong_with_task_or_example(tmp_path: Path, manifest: dict[str, Any], words: str) -> None:
    folder = write_bundle(tmp_path / "bundle", "wrong", **manifest)
    run = heedful(tmp_path, "check", str(folder))
    assert run.returncode == 2
    assert words in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_check_runs_the_graphs_as_far_as_the_limits_go(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(RECOMMENDATION, folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["limits"]["max_tokens"] = 101
    (folder / MANIFEST).write_text(json.dumps(manifest))
    run = heedful(tmp_path, "check", str(folder))
    assert run.returncode == 2
    assert "the int8 graphs read at most 100 tokens, limits.max_tokens is 101; restore the bundle" in run.stderr
    assert "is whole" not in run.stdout


def test_serve_refuses_a_port_that_is_taken(bundles: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for runtime in ("ray", "embedded"):
            line = sentence(heedful(bundles, "serve", "--port", str(port), "--runtime", runtime))
            assert f"cannot listen on 127.0.0.1 port {port}: Address already in use; choose another with --port" in line


def embedded(bundles: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return heedful(bundles, "serve", "--runtime", "embedded", "--port", str(free_port()), *arguments)


def test_serve_refuses_a_model_that_cannot_answer_its_own_example(tmp_path: Path) -> None:
    write_bundle(tmp_path / "sound", "sound")
    folder = write_bundle(tmp_path / "poisoned", "poisoned", poison=1)
    run = embedded(tmp_path)
    assert (run.returncode, run.stdout) == (2, "")
    line = run.stderr.splitlines()[-1]  # below what the log says of the failure itself
    assert line.startswith(f"heedful: {folder}: cannot answer its own example: recommendation/poisoned: the model")


def test_serve_refuses_an_example_that_is_no_request(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "odd", "odd", example={"inputs": "i1"})
    assert f"{folder}: field example.inputs is not of a recommendation request: " in sentence(embedded(tmp_path))


def test_serve_refuses_a_canary_where_there_is_no_cluster(bundles: Path, tmp_path: Path) -> None:
    config = tmp_path / "heedful.yaml"
    config.write_text(f"models: [{{bundle: {bundles}/a, canary: {{bundle: {bundles}/b, percent: 5}}}}]")
    line = sentence(embedded(bundles, "--config", str(config)))
    assert "a canary needs the cluster: leave out --runtime embedded, or the setting canary" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "poetry", "x"], "the task 'poetry' is unknown; choose one of translation, summarization"),
        (["run", "translation", "x"], "no model for translation is configured"),
        (["run", "question-answering", "x"], "takes QUESTION and CONTEXT, got 1 texts"),
        (["run", "recommendation", "x"], "inputs/history/0 must be one of the model's 50 items, got 'x'"),
        (["deploy", "x", "/nowhere"], "/nowhere: not a bundle, bundle.json is missing"),
        (
            ["deploy", "en fr", "models/bundles/recommendation"],
            "no model can be named 'en fr': a name has 1 to 64 letters, digits, dots",
        ),
        (
            ["deploy", "translation/x", "models/bundles/recommendation"],
            "is a model for recommendation, but translation/x says translation; call it recommendation/x",
        ),
        (["remove", "x", "--port", "1"], "no service on Ray was started here on port 1; name its --port, or"),
        (["check", "/nowhere"], "/nowhere: not a bundle, bundle.json is missing"),
        (["serve", "--config", "/nowhere.yaml"], "/nowhere.yaml cannot be read as YAML"),
        (["serve", "--port", "70000"], "setting port: Input should be less than or equal to 65535, got 70000"),
        (["serve", "--host", "::1"], "setting host: on Ray it is one of 127.0.0.1, localhost, 0.0.0.0, got ::1"),
        (
            ["serve", "--host", "nowhere.invalid", "--runtime", "embedded"],
            "cannot listen on nowhere.invalid port 8000: ",
        ),
    ],
)
def test_a_mistake_is_one_sentence(bundles: Path, arguments: list[str], words: str) -> None:
    assert words in sentence(heedful(bundles, *arguments))
