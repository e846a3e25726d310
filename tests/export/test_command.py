"""`heedful export` as its user runs it: from a directory and from a hub, and one sentence for what he can mend."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.bundle import MANIFEST, read_manifest
from models.export.staging import staging
from service.__main__ import main
from tests.export import vocabularies
from tests.export.checkpoints import bert, marian, sasrec
from tests.export.hub import COMMIT, Hub, hub

CARD = "---\nlicense: cc-by-4.0\nlanguage: en\ndatasets: [squad]\n---\n# Somebody's card\n"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directories as a user has them, good ones and bad ones."""
    folder = tmp_path_factory.mktemp("checkpoints")
    (bert(folder / "qa") / "README.md").write_text(CARD)
    (folder / "qa" / "pytorch_model.bin").write_bytes(b"a pickle beside the safetensors")
    marian(folder / "no-languages")
    sasrec(folder / "shop")
    (folder / "pickle").mkdir()
    (folder / "pickle" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (folder / "pickle" / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "gpt2").mkdir()
    (folder / "gpt2" / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    (folder / "seeing").mkdir()
    (folder / "seeing" / "config.json").write_text(json.dumps({"model_type": "vit"}))
    shutil.copytree(folder / "qa", folder / "no-tokenizer")
    (folder / "no-tokenizer" / "tokenizer.json").unlink()
    shutil.copytree(folder / "qa", folder / "truncated")
    weights = folder / "truncated" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    return folder


def heedful(cwd: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_command(*arguments), **_surroundings(cwd, environment), capture_output=True, check=False)


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "service", "export", *arguments]


def _surroundings(cwd: Path, environment: dict[str, str]) -> dict[str, Any]:
    own = {"PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "100", "HF_HUB_OFFLINE": "1"}
    return {"cwd": cwd, "text": True, "env": {**os.environ, **own, **environment}, "timeout": 300}


def sentence(run: subprocess.CompletedProcess[str]) -> str:
    """The one line that a failed command prints."""
    assert run.returncode == 2, run.stderr
    assert run.stdout == ""
    (line,) = (line for line in run.stderr.splitlines() if line.strip())
    assert line.startswith("heedful: ")
    return line


Here = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """The command in this process, where torch is loaded already."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["heedful", "export", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return subprocess.CompletedProcess(arguments, int(end.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def offered(checkpoints: Path) -> Any:
    with hub({"own/qa": checkpoints / "qa", "own/pickle": checkpoints / "pickle"}) as server:
        yield server


def test_a_model_of_the_hub_becomes_a_bundle_without_a_recipe(tmp_path: Path, offered: Hub) -> None:
    online = {
        "HF_ENDPOINT": offered.url,
        "HF_HOME": str(tmp_path / "cache"),
        "HF_TOKEN": "secret",
        "HF_HUB_OFFLINE": "",
    }
    run = heedful(tmp_path, "own/qa", "--task", "question-answering", "--out", "bundles/qa", **online)
    assert run.returncode == 0, run.stderr
    assert run.stderr.strip() == ""
    assert re.search(r"fp32 +│ \d\.\de-0\d +│ \d\.\de-0\d +│ 100\.0%", run.stdout)
    assert re.search(r"int8 +│ \d\.\de-0\d", run.stdout)
    assert "bundles/qa: qa 0123456789ab, 0.1 MB. Serve it with: HEEDFUL_BUNDLES=bundles heedful serve" in run.stdout
    manifest = read_manifest(tmp_path / "bundles" / "qa")
    assert (manifest.name, manifest.licence, manifest.version) == ("qa", "cc-by-4.0", COMMIT[:12])
    assert manifest.languages.source == ("en",)
    assert manifest.limits.max_tokens == 64
    card = (tmp_path / "bundles" / "qa" / "README.md").read_text()
    assert f"{offered.url}/own/qa at revision {COMMIT}" in card
    assert "Bearer secret" in offered.tokens
    assert not any(path.endswith(".bin") for path in offered.asked)

    offline = {**online, "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    run = heedful(tmp_path, "own/qa", "--task", "summarization", "--out", "bundles/again", **offline)
    assert "a bert checkpoint serves question-answering, not summarization" in sentence(run)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["own/pickle"], "own/pickle has no safetensors weights; weights in a pickle"),
        (["own/nothing"], "is neither a directory here nor a model on http://127.0.0.1"),
        (["own/qa", "--revision", "v9"], "own/qa has no revision v9: give a branch, tag or commit that it has"),
        (["no such id"], "no such id is neither a directory here nor a model id such as"),
    ],
)
def test_what_the_hub_does_not_have_is_one_sentence(
    tmp_path: Path, offered: Hub, arguments: list[str], words: str
) -> None:
    environment = {"HF_ENDPOINT": offered.url, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": ""}
    run = heedful(tmp_path, *arguments, "--task", "question-answering", "--out", "bundle", **environment)
    assert words in sentence(run)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
def test_a_marian_with_two_vocabularies_is_refused_by_that_from_the_hub_too(tmp_path: Path) -> None:
    model = vocabularies.train_sentencepiece(tmp_path / "model", vocabularies.english(200))
    two = vocabularies.marian(tmp_path / "two", model, model)
    (two / "target_vocab.json").write_text((two / "vocab.json").read_text())
    settings = json.loads((two / "tokenizer_config.json").read_text())
    (two / "tokenizer_config.json").write_text(json.dumps(settings | {"separate_vocabs": True}))
    (two / "model.safetensors").write_bytes(b"read later")
    with hub({"own/two": two}) as server:
        online = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": ""}
        run = heedful(tmp_path, "own/two", "--task", "translation", "--out", "bundle", **online)
    assert "it has one vocabulary for the source and another for the target" in sentence(run)


def test_a_hub_out_of_reach_is_one_sentence(tmp_path: Path) -> None:
    arguments = ("own/qa", "--task", "question-answering", "--out", "bundle")
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": ""}
    run = heedful(tmp_path, *arguments, **nowhere)
    assert "http://127.0.0.1:9 cannot be reached and own/qa is not in the cache: try again" in sentence(run)
    run = heedful(tmp_path, *arguments, **{**nowhere, "HF_HUB_OFFLINE": "1"})
    assert "own/qa is not in the cache and HF_HUB_OFFLINE is set: unset it" in sentence(run)


@pytest.mark.parametrize(
    ("source", "task", "words"),
    [
        ("shop", "question-answering", "a sasrec checkpoint serves recommendation, not question-answering"),
        ("no-tokenizer", "question-answering", "no-tokenizer: no tokenizer, one of tokenizer.json, source.spm"),
        ("truncated", "question-answering", "fully covered: a file is broken or cut short, fetch it again"),
        ("no-languages", "translation", "nothing in no-languages tells its languages: give --source-language and"),
        ("gpt2", "translation", "a gpt2 checkpoint serves question-answering, not translation"),
        ("seeing", "question-answering", "seeing: model_type 'vit' is not one of marian, bart"),
        ("pickle", "question-answering", "pickle: model.safetensors is missing; weights in a pickle"),
        ("qa", "poetry", "the task 'poetry' is unknown; choose one of translation"),
    ],
)
def test_a_bad_checkpoint_is_one_sentence_and_leaves_nothing(
    checkpoints: Path, here: Here, source: str, task: str, words: str
) -> None:
    run = here(str(checkpoints / source), "--task", task, "--out", "new/bundle")
    assert words in sentence(run)
    assert list(Path.cwd().iterdir()) == []


def test_a_taken_folder_is_refused(tmp_path: Path, checkpoints: Path, here: Here) -> None:
    (tmp_path / "precious").mkdir()
    arguments = (str(checkpoints / "shop"), "--task", "recommendation", "--out", "precious")
    assert "precious exists and is no bundle: choose another folder" in sentence(here(*arguments, "--force"))
    (tmp_path / "precious" / MANIFEST).write_text("{}")
    assert "precious holds a bundle already: replace it with --force, or" in sentence(here(*arguments))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--precision", "int4"], "'--precision': 'int4' is not one of 'int8', 'fp16', 'fp32'; see heedful export -"),
        (["--operators", "own"], "'--operators': 'own' is not one of 'onnxruntime', 'standard'; see heedful export -"),
        (["--precison", "fp32"], "no such option: --precison (Possible options: --precision, "),
        (["--name", "a shop"], "--name must have at most 64 letters, digits, dots, underscores and hyphens"),
        (["--out", "/dev/null/bundle"], "/dev/null/bundle cannot be made, since /dev/null is no folder: choose"),
        (["--recipe", "none.toml"], "none.toml: cannot be read as TOML: [Errno 2] No such file or directory"),
        (["--revision", "main"], "is a directory, --revision main is for models of the hub: leave it out"),
    ],
)
def test_a_bad_option_is_one_sentence_and_leaves_nothing(
    checkpoints: Path, here: Here, options: list[str], words: str
) -> None:
    run = here(str(checkpoints / "shop"), "--task", "recommendation", "--out", "new/bundle", *options)
    assert words in sentence(run)
    assert list(Path.cwd().iterdir()) == []


def test_without_torch_it_says_what_to_install(tmp_path: Path, checkpoints: Path) -> None:
    """As in a serving environment: torch cannot be found."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class WithoutTorch:\n"
        "    def __init__(self, finder):\n"
        "        self.finder = finder\n"
        "    def find_spec(self, name, *where):\n"
        "        return None if name == 'torch' else self.finder.find_spec(name, *where)\n"
        "sys.meta_path[:] = map(WithoutTorch, sys.meta_path)\n"
    )
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    arguments = (str(checkpoints / "shop"), "--task", "recommendation", "--out", "bundle")
    run = heedful(tmp_path, *arguments, PYTHONPATH=path)
    command = "pip install --constraint constraints.txt -e '.[cpu,export]'"
    assert f"exporting needs torch, which is not installed: run {command} in the checkout" in sentence(run)
    assert not (tmp_path / "bundle").exists()


def test_a_killed_export_leaves_no_half_bundle_and_the_next_one_cleans_up(tmp_path: Path, checkpoints: Path) -> None:
    arguments = (str(checkpoints / "shop"), "--task", "recommendation", "--out", "bundle")
    surroundings = _surroundings(tmp_path, {})
    surroundings.pop("timeout")
    with subprocess.Popen(_command(*arguments), **surroundings, stdout=subprocess.DEVNULL) as process:
        give_up = time.monotonic() + 120
        while not list(tmp_path.glob(".bundle.heedful-export-*/bundle/fp32")):
            assert process.poll() is None
            assert time.monotonic() < give_up
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".bundle.heedful-export-")
    with staging(tmp_path / "bundle") as staged:
        (staged / "file").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
