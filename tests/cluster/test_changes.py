"""A running service that changes under load: replicas come and go, versions follow one another, nothing is lost."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from service.ray_environment import address_file
from tests.cluster.conftest import QUICK, REQUEST, SLOW, named, processes, samples, until
from tests.cluster.load import constant_load
from tests.serving import HEEDFUL, Service, start, stop
from tests.tiny import write_broken, write_bundle

pytestmark = [pytest.mark.cluster, pytest.mark.nightly]

RARE = "/v1/recommendation/rare"
POISON = 7
STARVED_S = 8  # longer than two of the load balancer's checks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("versions")
    for version in (1, 2, 3):
        write_bundle(folder / f"quick-{version}", "quick", seed=version, version=str(version), poison=POISON)
    for version in (1, 2, 3):
        write_bundle(folder / f"slow-{version}", "slow", seed=version, version=str(version), products=16)
    write_bundle(folder / "rare", "rare")
    write_broken(folder / "broken", "quick", version="4")
    return folder


@pytest.fixture(scope="module")
def service(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Three groups: one with two replicas, one that scales from 1 to 2, one that may have none."""
    models = [
        {"bundle": str(folder / "quick-1")},
        {"bundle": str(folder / "slow-1"), "replica": "slow"},
        {"bundle": str(folder / "rare"), "replica": "rare"},
    ]
    groups = {
        "models": {"replicas": 2},
        "slow": {
            "limits": {"max_waiting_rows": 60},
            "autoscaling": {"max_replicas": 2, "backlog_s": 1.0, "down_after_s": 3},
        },
        "rare": {"autoscaling": {"min_replicas": 0, "max_replicas": 1, "zero_after_s": 3}},
    }
    config = folder / "heedful.yaml"
    config.write_text(yaml.safe_dump({"models": models, "groups": groups, "num_cpus": 0.1, "slots": 4}))
    running = start("ray", tmp_path_factory.mktemp("changes") / "log", "--config", str(config))
    asyncio.run(until(lambda: "Heedful is ready" in running.log.read_text()))
    yield running
    stop(running)
    assert running.process.returncode == 0, running.log.read_text()


@pytest.fixture
async def client(service: Service) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=service.url, timeout=90) as client:
        yield client


async def command(service: Service, *arguments: str) -> asyncio.subprocess.Process:
    """A command for the running service, begun; signals are not ignored in it, though they may be where tests run."""
    whole = [str(HEEDFUL), *arguments, "--port", str(httpx.URL(service.url).port)]
    pipe = asyncio.subprocess.PIPE
    ignored = {signum: signal.signal(signum, signal.SIG_DFL) for signum in (signal.SIGINT, signal.SIGHUP)}
    try:
        return await asyncio.create_subprocess_exec(*whole, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
    finally:
        for signum, handler in ignored.items():
            signal.signal(signum, handler)


async def heedful(service: Service, *arguments: str) -> tuple[int, str]:
    """A command for the running service: its exit code and what it printed."""
    process = await command(service, *arguments)
    printed, _ = await process.communicate()
    return process.returncode or 0, printed.decode()


def replicas(service: Service, name: str) -> int:
    return len(named(f"ray::ServeReplica:{name}:", processes(service)))


def version(service: Service, name: str = "quick") -> str | None:
    cards = httpx.get(f"{service.url}/v1/models", timeout=60).json()
    return next((card["version"] for card in cards if card["name"] == name), None)


async def test_the_last_replica_goes_and_the_first_caller_is_answered(
    service: Service, client: httpx.AsyncClient
) -> None:
    await until(lambda: replicas(service, "rare") == 0)
    assert (await client.get("/readyz")).status_code == 200
    answers = await asyncio.gather(*(client.post(RARE, json=REQUEST) for _ in range(3)))
    assert [answer.status_code for answer in answers] == [200] * 3
    assert replicas(service, "rare") == 1


async def test_a_backlog_brings_a_second_replica_that_goes_when_it_is_not_needed(service: Service) -> None:
    assert replicas(service, "slow") == 1
    async with constant_load(f"{service.url}{SLOW}", REQUEST, callers=50) as tally:
        await until(lambda: replicas(service, "slow") == 2)
        with httpx.Client(base_url=service.url, timeout=60) as http:
            await until(lambda: sum(samples(http, "heedful_ready", model="slow").values()) == 2)
            await asyncio.sleep(2)
    async with constant_load(f"{service.url}{SLOW}", REQUEST, callers=1) as afterwards:
        await until(lambda: replicas(service, "slow") == 1)
    assert (tally.lost, afterwards.lost) == ([], [])
    assert tally.answered > 50
    assert afterwards.answered > 0


async def test_a_new_version_begins_with_as_many_replicas_as_a_wave_has_brought(service: Service, folder: Path) -> None:
    async with constant_load(f"{service.url}{SLOW}", REQUEST, callers=50) as tally:
        with httpx.Client(base_url=service.url, timeout=60) as http:
            await until(lambda: sum(samples(http, "heedful_ready", model="slow").values()) == 2)
        process = await command(service, "deploy", "slow", str(folder / "slow-2"))
        ended = asyncio.create_task(process.communicate())
        seen = []
        while not ended.done():
            seen.append(replicas(service, "slow"))
            await asyncio.sleep(0.1)
        assert process.returncode == 0, ended.result()
        await until(lambda: version(service, "slow") == "2")
    assert min(seen) == 2
    assert max(seen) == 4
    assert tally.lost == []


async def test_a_version_replaces_another_a_broken_one_does_not_and_rollback_returns(
    service: Service, folder: Path, client: httpx.AsyncClient
) -> None:
    first = (await client.post(QUICK, json=REQUEST)).text
    async with constant_load(f"{service.url}{QUICK}", REQUEST) as tally:
        code, said = await heedful(service, "deploy", "quick", str(folder / "quick-2"))
        assert (code, said.splitlines()[-1]) == (0, "done: models, gateway"), said
        await until(lambda: version(service) == "2")
        second = (await client.post(QUICK, json=REQUEST)).text
        code, said = await heedful(service, "deploy", "quick", str(folder / "broken"))
        assert code == 2
        assert "ONNX Runtime cannot load this graph" in said.splitlines()[-1]
        assert version(service) == "2"
        assert (await client.post(QUICK, json=REQUEST)).text == second
        code, said = await heedful(service, "rollback", "quick")
        assert code == 0, said
        await until(lambda: version(service) == "1")
        await until(lambda: httpx.post(f"{service.url}{QUICK}", json=REQUEST).text == first)
    assert tally.lost == []
    assert set(tally.answers) == {first, second}
    assert first != second


@pytest.mark.parametrize(
    ("application", "signum"), [("models", signal.SIGINT), ("models", signal.SIGHUP), ("gateway", signal.SIGTERM)]
)
async def test_an_interrupted_deploy_changes_nothing(
    service: Service, folder: Path, client: httpx.AsyncClient, application: str, signum: signal.Signals
) -> None:
    """Whichever application it replaces at that moment."""
    first, before = (await client.post(QUICK, json=REQUEST)).text, replicas(service, application)
    async with constant_load(f"{service.url}{QUICK}", REQUEST) as tally:
        process = await command(service, "deploy", "quick", str(folder / "quick-2"))
        await until(lambda: replicas(service, application) > before)
        process.send_signal(signum)
        printed, _ = await process.communicate()
        assert process.returncode != 0, printed.decode()
        await until(lambda: (replicas(service, "models"), replicas(service, "gateway")) == (2, 1))
        await until(lambda: version(service) == "1")
        await until(lambda: {httpx.post(f"{service.url}{QUICK}", json=REQUEST).text for _ in range(8)} == {first})
    assert tally.lost == []


HOLD = """
import sys, ray
from service.cluster.lifecycle import alone
ray.init(address=sys.argv[1], log_to_driver=False)
with alone():
    print("held", flush=True)
    sys.stdin.read()
"""


async def test_two_commands_do_not_change_it_at_the_same_time(service: Service, folder: Path) -> None:
    address = address_file(httpx.URL(service.url).port or 0).read_text()
    pipe, token = asyncio.subprocess.PIPE, {**os.environ, "RAY_AUTH_MODE": "token"}
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLD, address, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL, env=token
    )
    assert other.stdin and other.stdout  # noqa: PT018
    assert await other.stdout.readline() == b"held\n"
    code, said = await heedful(service, "deploy", "quick", str(folder / "quick-2"))
    assert (code, "another command is changing this service" in said) == (2, True), said
    assert version(service) == "1"
    other.kill()  # without a chance to clean up
    await other.wait()
    give_up = time.monotonic() + 180
    while "another command" in said:
        assert time.monotonic() < give_up, said
        code, said = await heedful(service, "deploy", "quick", str(folder / "quick-1"))
    assert (code, "quick is served from" in said) == (2, True), said


async def test_a_canary_answers_its_share_beside_the_stable_version(
    service: Service, folder: Path, client: httpx.AsyncClient
) -> None:
    stable = (await client.post(QUICK, json=REQUEST)).text
    async with constant_load(f"{service.url}{QUICK}", REQUEST) as tally:
        code, said = await heedful(service, "deploy", "quick", str(folder / "quick-3"), "--canary", "30")
        assert code == 0, said
        ids = [f"same-{number}" for number in range(200)]
        shared = [(await client.post(QUICK, json=REQUEST, headers={"X-Request-ID": each})).text for each in ids]
        again = [(await client.post(QUICK, json=REQUEST, headers={"X-Request-ID": each})).text for each in ids]
        bad = [await client.post(QUICK, json={"inputs": {"history": ["no"]}}) for _ in range(10)]
        code, said = await heedful(service, "rollback", "quick")
        assert code == 0, said
        await until(lambda: replicas(service, "models-canary") == 0)
    assert again == shared
    assert {answer.status_code for answer in bad} == {422}
    canary = [answer for answer in shared if answer != stable]
    assert 30 <= len(canary) <= 90
    assert len(set(canary)) == 1
    assert set(tally.answers) == {stable, *canary}
    assert tally.lost == []


async def test_replicas_that_are_slow_for_some_seconds_keep_their_requests(service: Service) -> None:
    """They miss the load balancer's checks, all of them at once, so that a request that is cut has nowhere to go."""
    starved = named("ray::ServeReplica:models:", processes(service))
    assert len(starved) == 2
    async with constant_load(f"{service.url}{QUICK}", REQUEST, callers=16) as tally:
        await until(lambda: tally.answered > 100)
        for replica in starved:
            replica.suspend()
        await asyncio.sleep(STARVED_S)
        for replica in starved:
            replica.resume()
        before = tally.answered
        await until(lambda: tally.answered > before + 100)
    assert tally.lost == []


async def test_a_model_comes_and_goes_without_the_others_noticing(
    service: Service, folder: Path, client: httpx.AsyncClient
) -> None:
    new = f"{QUICK}/extra"
    async with constant_load(f"{service.url}{QUICK}", REQUEST) as tally:
        code, said = await heedful(service, "deploy", "extra", str(folder / "quick-3"))
        assert (code, said.splitlines()[-1]) == (0, "done: extra, gateway"), said
        async with constant_load(f"{service.url}{new}", REQUEST) as of_new:
            await until(lambda: of_new.answered > 20)
        code, said = await heedful(service, "remove", "extra")
        assert code == 0, said
        await until(lambda: httpx.post(f"{service.url}{new}", json=REQUEST).status_code == 404)
    assert (tally.lost, of_new.lost) == ([], [])
    code, said = await heedful(service, "remove", "extra")
    assert (code, "no model is named 'extra'" in said) == (2, True)


async def test_overload_is_refused_and_the_next_caller_is_served(service: Service, client: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(client.post(SLOW, json=REQUEST) for _ in range(400)))
    assert {answer.status_code for answer in answers} == {200, 429}
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) >= 10
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert {answer.headers["content-type"] for answer in refused} == {"application/problem+json"}
    assert (await client.post(SLOW, json=REQUEST)).status_code == 200


async def test_a_poisonous_request_fails_alone(client: httpx.AsyncClient) -> None:
    poison = {"inputs": {"history": [f"i{POISON}"]}}
    calls = [client.post(QUICK, json=poison if number == 8 else REQUEST) for number in range(16)]
    statuses = [answer.status_code for answer in await asyncio.gather(*calls)]
    assert statuses == [200] * 8 + [500] + [200] * 7


async def test_the_default_model_goes_and_the_next_one_with_its_canary_takes_its_place(
    service: Service, folder: Path, client: httpx.AsyncClient
) -> None:
    """It has a replica of its own, and gets the prefix that the default's replica had."""
    async with constant_load(f"{service.url}{SLOW}", REQUEST, callers=4) as tally:
        code, said = await heedful(service, "deploy", "slow", str(folder / "slow-3"), "--canary", "50")
        assert code == 0, said
        code, said = await heedful(service, "remove", "quick")
        assert code == 0, said
        answers = {(await client.post("/v1/recommendation", json=REQUEST)).text for _ in range(20)}
    assert tally.lost == []
    assert answers == set(tally.answers)
    assert len(answers) == 2
    assert replicas(service, "models") == 0
