"""Every command on the pages works: curl against both hosts, the others here, long ones as far as their options go."""

import importlib.util
import itertools
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import HEEDFUL, Service

ROOT = Path(__file__).parents[2]
ADDRESS = "http://127.0.0.1:8000"
PAGES = sorted(
    [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("deploy/*.md"), *ROOT.glob("loadtests/**/*.md")]
)
ELSEWHERE = ROOT / "docs" / "clients.md"
"""Its blocks are run whole, by `test_clients_page.py`."""
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
QUICK = {"run", "models", "check"}
"""Subcommands of heedful that end by themselves within a second or two."""


def commands() -> Iterator[str]:
    """Each command of each `sh` block, its continued lines joined and comments and assignments dropped."""
    for page in PAGES:
        if page == ELSEWHERE:
            continue
        for language, code in BLOCK.findall(page.read_text(encoding="utf-8")):
            if language == "sh":
                for line in code.replace("\\\n", " ").splitlines():
                    words = shlex.split(line, comments=True)
                    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                        words = words[1:]
                    if words:
                        yield shlex.join(words)


COMMANDS = sorted(set(commands()))
ASKED = [command for command in COMMANDS if command.startswith("curl ") and ADDRESS in command]


def exchanges() -> list[tuple[str, str]]:
    """README's requests with the answer that stands below each."""
    blocks = BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    following = itertools.pairwise(blocks)
    return [(code, below) for (language, code), (kind, below) in following if (language, kind) == ("sh", "json")]


def answer(command: str, service: Service) -> str:
    """What curl prints; a status of 400 and above fails."""
    here = command.replace(ADDRESS, service.url).replace("curl ", "curl --silent --show-error --fail-with-body ", 1)
    ran = subprocess.run(["sh", "-ec", here], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, (here, ran.stdout, ran.stderr)
    return ran.stdout


@pytest.mark.parametrize("command", ASKED)
def test_a_request_on_a_page_is_answered(service: Service, command: str) -> None:
    assert answer(command, service).strip()


def test_readme_shows_what_is_answered(service: Service) -> None:
    assert len(exchanges()) == 4
    for request, shown in exchanges():
        assert _rounded(json.loads(answer(request, service))) == _rounded(json.loads(shown))


def _rounded(answer: object) -> object:
    """Scores to a tenth: processors round int8 sums differently."""
    return json.loads(json.dumps(answer), parse_float=lambda text: round(float(text), 1))


@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in ASKED])
def test_a_command_on_a_page_exists_with_its_options(command: str) -> None:
    program, *words = shlex.split(command.removeprefix(".venv/bin/"))
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert {word for word in words if "=" not in word} <= set(targets)
    elif program == "heedful":
        arguments = words if words[0] in QUICK else [words[0], "--help"]
        ran = subprocess.run([HEEDFUL, *arguments], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
        assert ran.returncode == 0, ran.stderr
        assert all(option in ran.stdout for option in _options(words) if words[0] not in QUICK)
    elif program == "locust":
        described = (ROOT / "loadtests" / "locustfile.py").read_text(encoding="utf-8")
        assert all(f'"{option}"' in described for option in _options(words) if option not in {"--headless", "--host"})
    elif program in {"python", "python3"} and words[0] == "-m":
        assert all(f'"{option}"' in _source(words[1]) for option in _options(words)), command
    elif program == "pip":
        assert all((ROOT / word).exists() for word in words if word.endswith(".txt"))
    else:
        pytest.fail(f"nothing here knows how to check: {command}")


def test_every_module_that_a_page_names_is_there() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    for module in set(re.findall(r"python -m ([a-z_.]+[a-z])", text)):
        assert importlib.util.find_spec(module) is not None, module


def _options(words: list[str]) -> list[str]:
    return [word.partition("=")[0] for word in words if word.startswith("--")]


def _source(module: str) -> str:
    """The file that `python -m module` runs."""
    found = importlib.util.find_spec(module)
    assert found is not None, module
    package = found.submodule_search_locations
    return (Path(package[0]) / "__main__.py" if package else Path(str(found.origin))).read_text(encoding="utf-8")
