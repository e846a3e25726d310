"""Every block of docs/clients.md does what it says, on both hosts."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.browser import chromium, run_javascript, watched
from tests.serving import Service

PAGE = (Path(__file__).parents[2] / "docs" / "clients.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(python|sh|js)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
ADDRESS = "http://127.0.0.1:8000"


def here(code: str, service: Service) -> str:
    """The block for the service under test."""
    named = code.replace("Client() as", f'Client("{ADDRESS}") as')
    assert ADDRESS in named
    return named.replace(ADDRESS, service.url)


def of(*languages: str) -> list[str]:
    return [code for language, code in BLOCKS if language in languages]


def test_the_page_has_blocks_of_every_client() -> None:
    assert len(of("python")) == 6
    assert len(of("sh")) == 2
    assert len(of("js")) == 2
    assert len(BLOCKS) == PAGE.count("```") / 2


@pytest.mark.parametrize("code", of("python"))
def test_python(service: Service, code: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", here(code, service)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.strip()


@pytest.mark.parametrize("code", of("sh"))
def test_curl(service: Service, code: str) -> None:
    ran = subprocess.run(["sh", "-ec", here(code, service)], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stdout
    assert "detail" not in re.sub(r'"details": ?', "", ran.stdout)


@pytest.mark.browser
def test_javascript(service: Service) -> None:
    with chromium() as browser, watched(browser, service.url, bypass_csp=True) as page:
        page.goto("/")
        for code in of("js"):
            assert "gare" in run_javascript(page, here(code, service))
