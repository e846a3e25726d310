"""Starting and ending: what was accepted is answered, what is new gets 503, and no process is left."""

import asyncio
import os
import signal
import time
from pathlib import Path

import httpx
import pytest

from tests.cluster.conftest import QUICK, REQUEST, SLOW, Begin, alive, processes, samples, until
from tests.serving import Service
from tests.tiny import write_broken

pytestmark = pytest.mark.cluster

IN_FLIGHT = 16


def is_ready(service: Service) -> bool:
    assert service.process.poll() is None, service.log.read_text()
    return "Heedful is ready" in service.log.read_text()


def accepted(service: Service) -> float:
    """Requests that the slow model has answered or will answer."""
    with httpx.Client(base_url=service.url, timeout=60) as http:
        names = ("heedful_requests_total", "heedful_running_rows", "heedful_waiting_rows")
        return sum(sum(samples(http, name, model="slow").values()) for name in names)


async def busy(client: httpx.AsyncClient, service: Service) -> list[asyncio.Task[httpx.Response]]:
    """Requests that were all accepted, most of them not answered yet."""
    before = accepted(service)
    calls = [asyncio.create_task(client.post(f"{service.url}{SLOW}", json=REQUEST)) for _ in range(IN_FLIGHT)]
    await until(lambda: accepted(service) == before + IN_FLIGHT)
    return calls


async def until_refused(client: httpx.AsyncClient, service: Service, path: str) -> list[httpx.Response]:
    """One request after the other, so that some are under way whenever the service begins to drain."""
    give_up = time.monotonic() + 120
    answers = [await client.post(f"{service.url}{path}", json=REQUEST)]
    while answers[-1].is_success:
        assert time.monotonic() < give_up, f"still not refused after {len(answers)} answers"
        answers.append(await client.post(f"{service.url}{path}", json=REQUEST))
    return answers


async def test_a_second_service_runs_beside_the_first_and_ctrl_c_drains_it(
    cluster: Service, begin: Begin, config: Path
) -> None:
    second = begin("--config", str(config), HEEDFUL_REPLICAS="1")
    await until(lambda: is_ready(second))
    family = processes(second)
    async with httpx.AsyncClient(timeout=180) as client:
        calls = await busy(client, second)
        os.killpg(second.process.pid, signal.SIGINT)
        *_, late = await until_refused(client, second, QUICK)
        assert [(await call).status_code for call in calls] == [200] * IN_FLIGHT
        assert late.status_code == 503
        assert late.headers["content-type"] == "application/problem+json"
        assert int(late.headers["retry-after"]) >= 1
        assert await asyncio.to_thread(second.process.wait, 60) == 0
        assert alive(family) == []
        assert "left behind" not in second.log.read_text()
        assert (await client.get(f"{cluster.url}/v1/models")).status_code == 200


async def test_without_haproxy_it_says_so_and_answers_and_the_drain_has_an_end(begin: Begin, config: Path) -> None:
    service = begin(
        "--config",
        str(config),
        HEEDFUL_REPLICAS="1",
        HEEDFUL_DRAIN_TIMEOUT_S="0.5",
        RAY_SERVE_ENABLE_HA_PROXY="0",
    )
    await until(lambda: is_ready(service))
    family = processes(service)
    assert not any("haproxy" in " ".join(each.cmdline()) for each in family)
    assert "WARNING heedful.cluster without HAProxy" in service.log.read_text()
    async with httpx.AsyncClient(timeout=180) as client:
        callers = [asyncio.create_task(until_refused(client, service, SLOW)) for _ in range(IN_FLIGHT)]
        await until(lambda: accepted(service) > IN_FLIGHT)
        os.killpg(service.process.pid, signal.SIGTERM)
        answers = [answer for caller in callers for answer in await caller]
    assert {answer.status_code for answer in answers} == {200, 503}
    assert {answer.headers["content-type"] for answer in answers} == {"application/json", "application/problem+json"}
    assert await asyncio.to_thread(service.process.wait, 60) == 0
    assert "still running after the drain timeout of 0.5 s and get 503" in service.log.read_text()
    assert alive(family) == []


async def test_a_signal_while_it_starts_ends_it(begin: Begin, config: Path) -> None:
    service = begin("--config", str(config))
    await until(lambda: any("raylet" in " ".join(each.cmdline()) for each in processes(service)))
    family = processes(service)
    os.killpg(service.process.pid, signal.SIGTERM)
    service.process.wait(60)
    assert alive(family) == []
    assert "Heedful is ready" not in service.log.read_text()
    assert "Traceback" not in service.log.read_text()


def test_a_graph_that_cannot_be_loaded_is_one_sentence(begin: Begin, tmp_path: Path) -> None:
    folder = write_broken(tmp_path / "bundle", "broken")
    service = begin(HEEDFUL_BUNDLES=str(tmp_path))
    assert service.process.wait(90) == 2
    (line,) = service.log.read_text().splitlines()
    assert line.startswith(f"heedful: {folder}/forward.onnx: ONNX Runtime cannot load this graph: ")
    assert line.endswith("restore the bundle, or use another")
