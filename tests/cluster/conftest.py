"""A real cluster for the tests of this folder: two replicas with a quick model, and one whose passes take a while."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import httpx
import psutil
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.serving import Service, launch, start, stop
from tests.tiny import write_bundle

QUICK, SLOW = "/v1/recommendation", "/v1/recommendation/slow"
REQUEST = {"inputs": {"history": ["i1"]}}
logging.getLogger("httpx").setLevel(logging.WARNING)  # it says every request, and hides what became of them
PRODUCTS = 12  # of the slow model: a quarter of a second a pass, so that a test can look while it runs


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    write_bundle(folder / "quick", "quick")
    write_bundle(folder / "slow", "slow", products=PRODUCTS)
    return folder


@pytest.fixture(scope="session")
def config(bundles: Path) -> Path:
    """Two groups; one row at a time, so that requests queue up in the slow model."""
    path = bundles.parent / "heedful.yaml"
    models = [{"bundle": str(bundles / "quick")}, {"bundle": str(bundles / "slow"), "replica": "slow"}]
    path.write_text(yaml.safe_dump({"models": models, "slots": 1, "replicas": 2}))
    return path


@pytest.fixture(scope="session")
def foreign_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose own `models` and `service` must not be imported in place of ours."""
    folder = tmp_path_factory.mktemp("foreign")
    for package in ("models", "service"):
        (folder / package).mkdir()
        (folder / package / "__init__.py").write_text("raise RuntimeError('imported from where the operator stands')")
    return folder


@pytest.fixture(scope="session")
def cluster(config: Path, foreign_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Started in a folder with foreign packages, as an operator may stand anywhere."""
    service = start("ray", tmp_path_factory.mktemp("cluster") / "log", "--config", str(config), folder=foreign_folder)
    family = processes(service)
    asyncio.run(until(lambda: "Heedful is ready" in service.log.read_text()))
    yield service
    stop(service)
    assert service.process.returncode == 0, service.log.read_text()
    assert alive(family) == []


class Begin(Protocol):
    def __call__(self, *arguments: str, **environment: str) -> Service: ...


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """Launches services on Ray that end with the test, whatever becomes of it."""
    begun: list[Service] = []

    def launched(*arguments: str, **environment: str) -> Service:
        begun.append(launch("ray", tmp_path / f"log{len(begun)}", *arguments, folder=None, **environment))
        return begun[-1]

    yield launched
    for service in begun:
        if service.process.poll() is None:
            stop(service)


@pytest.fixture
def http(cluster: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=cluster.url, timeout=60) as client:
        yield client


def processes(service: Service) -> list[psutil.Process]:
    """The command and everything that it has started."""
    command = psutil.Process(service.process.pid)
    return [command, *command.children(recursive=True)]


def alive(family: list[psutil.Process]) -> list[str]:
    """Those that still run; a process number that was given to another process does not count."""
    return [" ".join(each.cmdline())[:200] for each in family if each.is_running() and each.status() != "zombie"]


def named(name: str, family: list[psutil.Process]) -> list[psutil.Process]:
    """The processes whose command line has this name; one that ends meanwhile has none."""
    found = []
    for each in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [each] if name in " ".join(each.cmdline()) else []
    return found


def samples(http: httpx.Client, name: str, **labels: str) -> dict[str, float]:
    """A metric's value by replica, summed over the labels that are not given."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(http.get("/metrics").text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                replica = sample.labels["replica"]
                found[replica] = found.get(replica, 0) + sample.value
    return found


async def until(condition: Callable[[], bool], timeout_s: float = 180) -> None:
    """Wait for the condition, which may ask and wait itself, while calls go on."""
    give_up = time.monotonic() + timeout_s
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < give_up, f"not within {timeout_s} s"
        await asyncio.sleep(0.02)
