"""A served Heedful for the tests of the HTTP contract: the same suite runs against both hosts."""

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page

from tests.contract.browser import chromium, watched
from tests.serving import Service, start, stop


@pytest.fixture(scope="session", params=["embedded", pytest.param("ray", marks=pytest.mark.cluster)])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for the whole suite on each host."""
    running = start(request.param, tmp_path_factory.mktemp(request.param) / "log")
    yield running
    stop(running)
    assert running.process.returncode == 0, running.log.read_text()


@pytest.fixture
def http(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium, for a module only: while it runs, no other event loop can."""
    with chromium() as started:
        yield started


@pytest.fixture
def page(browser: Browser, service: Service) -> Iterator[Page]:
    """The playground, which must report nothing to its console."""
    with watched(browser, service.url) as opened:
        opened.goto("/")
        yield opened
