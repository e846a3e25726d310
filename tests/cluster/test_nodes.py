"""Several nodes: a worker cut off and brought back, a head restarted, a version replaced, under constant load."""

import asyncio
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from tests.cluster.conftest import QUICK, REQUEST, samples, until
from tests.cluster.load import Tally, constant_load
from tests.cluster.nodes import GCS_PORT, Node, network, why_not
from tests.serving import HEEDFUL
from tests.tiny import write_bundle

pytestmark = [pytest.mark.cluster, pytest.mark.nightly]

PORT = 8000
REPLICAS = 4


@dataclass
class Cluster:
    """A service on a head and two workers."""

    head: Node
    workers: list[Node]
    service: "subprocess.Popen[bytes]"
    folder: Path
    restart_head: Callable[[], None] | None

    @property
    def url(self) -> str:
        return f"http://{self.head.address}:{PORT}"

    def ready(self) -> int:
        """Replicas that answer the gateway."""
        try:
            with httpx.Client(base_url=self.url, timeout=20) as http:
                return round(sum(samples(http, "heedful_ready", model="quick").values()))
        except (httpx.HTTPError, KeyError, ValueError):
            return 0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if reason := why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("nodes")
    for version in ("1", "2"):
        write_bundle(folder / f"quick-{version}", "quick", version=version, seed=int(version), products=1)
    config = folder / "heedful.yaml"
    settings = {
        "models": [{"bundle": str(folder / "quick-1")}],
        "host": "0.0.0.0",
        "port": PORT,
        "replicas": REPLICAS,
        "num_cpus": 0.7,
    }
    config.write_text(yaml.safe_dump(settings))
    with network(3) as (head, *workers):
        redis = shutil.which("redis-server")
        kept: dict[str, str] = {}
        if redis:
            kept["RAY_REDIS_ADDRESS"] = f"{head.address}:7000"
            head.popen(
                [redis, "--bind", head.address, "--port", "7000", "--protected-mode", "no"], folder / "redis.log"
            )
        address = f"{head.address}:{GCS_PORT}"

        def start_head() -> "subprocess.Popen[bytes]":
            own = f"--temp-dir={head.folder / 'ray'}"  # so that no other Ray on this machine finds this cluster
            return head.start_ray("--head", f"--port={GCS_PORT}", "--include-dashboard=false", own, **kept)

        started = [start_head()]
        asyncio.run(until(head.is_up))
        for worker in workers:  # one after the other: together they take longer than Ray waits on a busy machine
            worker.start_ray(f"--address={address}")
            asyncio.run(until(worker.is_up))

        def restart_head() -> None:
            started[-1].kill()
            head_processes = subprocess.run(
                ["ip", "netns", "pids", head.name], check=True, capture_output=True, text=True
            ).stdout.split()
            for pid in head_processes:
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                if b"redis" not in command and b"heedful" not in command:
                    subprocess.run(["kill", "-9", pid], check=False)
            started.append(start_head())

        log = folder / "service.log"
        command = [str(HEEDFUL), "serve", "--config", str(config)]
        service = head.popen(command, log, {"HEEDFUL_RAY_ADDRESS": address})
        found = Cluster(head, workers, service, folder, restart_head if redis else None)
        asyncio.run(until(lambda: _is_up(service, log)))
        asyncio.run(until(lambda: found.ready() == REPLICAS))
        yield found


def _is_up(service: "subprocess.Popen[bytes]", log: Path) -> bool:
    assert service.poll() is None, log.read_text()
    return "Heedful is ready" in log.read_text()


async def test_a_worker_that_is_cut_off_costs_only_what_was_in_it(cluster: Cluster) -> None:
    worker = cluster.workers[0]
    async with constant_load(f"{cluster.url}{QUICK}", REQUEST) as tally:
        await until(lambda: tally.answered > 50)
        worker.cut()
        await asyncio.sleep(20)
        without = tally.answered
        await until(lambda: tally.answered > without + 50)
        worker.mend()
        await until(lambda: cluster.ready() >= REPLICAS - 1)
    _only_in_flight(tally)


async def test_a_version_is_replaced_on_every_node(cluster: Cluster) -> None:
    async with constant_load(f"{cluster.url}{QUICK}", REQUEST) as tally:
        command = [str(HEEDFUL), "deploy", "quick", str(cluster.folder / "quick-2")]
        address = f"{cluster.head.address}:{GCS_PORT}"
        log = cluster.folder / "deploy.log"
        changing = cluster.head.popen([*command, "--address", address], log)
        await until(lambda: changing.poll() is not None)
        assert changing.returncode == 0, log.read_text()
        await asyncio.sleep(2)
    assert tally.lost == []
    assert len(tally.answers) == 2


async def test_the_head_is_restarted_while_the_workers_serve(cluster: Cluster) -> None:
    if cluster.restart_head is None:
        pytest.skip("needs redis-server, where Ray keeps the head's state")
    through_worker = f"http://{cluster.workers[1].address}:{PORT}{QUICK}"
    async with constant_load(through_worker, REQUEST) as tally:
        await until(lambda: tally.answered > 50)
        cluster.restart_head()
        await until(lambda: cluster.ready() == REPLICAS, timeout_s=240)
    _only_in_flight(tally)


def _only_in_flight(tally: Tally) -> None:
    """Each caller has one request under way, so that at most so many were in the node."""
    assert len(tally.lost) <= 6, tally.lost
    assert all(each.startswith("500") for each in tally.lost), tally.lost
