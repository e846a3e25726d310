"""Several nodes under constant load: a replica killed, a worker cut off and brought back, a version replaced and not
replaced by a broken one, the head restarted.
"""

import asyncio
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from tests.cluster.conftest import QUICK, REQUEST, named, samples, until
from tests.cluster.load import constant_load
from tests.cluster.nodes import GCS_PORT, Node, network, why_not
from tests.serving import HEEDFUL
from tests.tiny import write_broken, write_bundle

pytestmark = [pytest.mark.cluster, pytest.mark.nightly]

PORT = 8000
REPLICAS = 5  # of six that have room, two on each node
AWAY_S = 70  # longer than Ray lets a worker live without a head, unless it is told otherwise
REPLICA = "ray::ServeReplica:models"


@dataclass(frozen=True)
class Cluster:
    """A service on a head and two workers.

    Args:
        folder: with the bundles.
        store: environment of a head that keeps its state elsewhere; empty where it cannot.
    """

    head: Node
    workers: list[Node]
    folder: Path
    store: Mapping[str, str]

    @property
    def url(self) -> str:
        return at(self.head)

    @property
    def address(self) -> str:
        return f"{self.head.address}:{GCS_PORT}"

    def start_head(self) -> None:
        own = f"--temp-dir={self.head.folder / 'ray'}"  # so that no other Ray on this machine finds this cluster
        self.head.start_ray("--head", f"--port={GCS_PORT}", "--include-dashboard=false", own, **self.store)

    def ready(self) -> int:
        """Replicas that answer the gateway."""
        try:
            with httpx.Client(base_url=self.url, timeout=20) as http:
                return round(sum(samples(http, "heedful_ready", model="quick").values()))
        except (httpx.HTTPError, KeyError, ValueError):
            return 0


def at(node: Node) -> str:
    """The service at the address of one node."""
    return f"http://{node.address}:{PORT}"


def answers(node: Node) -> bool:
    """Whether its HAProxy has started and heard of the replicas: it does so seconds after its first replica."""
    try:
        return httpx.post(f"{at(node)}{QUICK}", json=REQUEST, timeout=20).is_success
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if reason := why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("nodes")
    for version in ("1", "2", "3"):
        write_bundle(folder / f"quick-{version}", "quick", version=version, seed=int(version), products=1)
    write_broken(folder / "broken", "quick", version="4")
    config = folder / "heedful.yaml"
    settings = {
        "models": [{"bundle": str(folder / "quick-1")}],
        "host": "0.0.0.0",
        "port": PORT,
        "replicas": REPLICAS,
        "num_cpus": 0.7,
    }
    config.write_text(yaml.safe_dump(settings))
    with network(4) as (other, head, *workers):
        store = {}
        if redis := shutil.which("redis-server"):
            store["RAY_REDIS_ADDRESS"] = f"{other.address}:7000"
            command = [redis, "--bind", other.address, "--port", "7000", "--protected-mode", "no"]
            other.popen(command, folder / "redis.log")
        found = Cluster(head, workers, folder, store)
        found.start_head()
        asyncio.run(until(head.is_up))
        for worker in workers:  # one after the other: together they take longer than Ray waits on a busy machine
            worker.start_ray(f"--address={found.address}")
            asyncio.run(until(worker.is_up))
        log = folder / "service.log"
        command = [str(HEEDFUL), "serve", "--config", str(config)]
        service = head.popen(command, log, {"HEEDFUL_RAY_ADDRESS": found.address})
        asyncio.run(until(lambda: _is_up(service, log)))
        asyncio.run(until(lambda: found.ready() == REPLICAS))
        asyncio.run(until(lambda: all(answers(each) for each in workers)))
        yield found


def _is_up(service: "subprocess.Popen[bytes]", log: Path) -> bool:
    assert service.poll() is None, log.read_text()
    return "Heedful is ready" in log.read_text()


async def deploy(cluster: Cluster, version: str) -> tuple[int, str]:
    """The command, on the head: its exit code and what it printed."""
    log = cluster.folder / f"deploy-{version}.log"
    command = [str(HEEDFUL), "deploy", "quick", str(cluster.folder / version), "--address", cluster.address]
    changing = cluster.head.popen(command, log)
    await until(lambda: changing.poll() is not None, timeout_s=300)
    return changing.returncode, log.read_text()


async def test_a_killed_replica_costs_nothing(cluster: Cluster) -> None:
    worker = cluster.workers[0]
    async with constant_load(f"{cluster.url}{QUICK}", REQUEST) as tally:
        await until(lambda: tally.answered > 50)
        named(REPLICA, worker.processes())[0].kill()
        await until(lambda: cluster.ready() < REPLICAS)
        await until(lambda: cluster.ready() == REPLICAS)
    assert tally.lost == []


async def test_a_worker_that_is_cut_off_costs_nothing_and_comes_back(cluster: Cluster) -> None:
    worker = max(cluster.workers, key=lambda each: len(named(REPLICA, each.processes())))
    async with constant_load(f"{cluster.url}{QUICK}", REQUEST) as tally:
        await until(lambda: tally.answered > 50)
        worker.cut()
        await until(lambda: cluster.ready() == REPLICAS - 2)
        await until(lambda: cluster.ready() == REPLICAS - 1)  # Ray has given it up and used the room that is left
        worker.mend()
        await until(lambda: worker.started[0].poll() is not None)  # its raylet hears that it was given up, and ends
        worker.kill()
        worker.start_ray(f"--address={cluster.address}")  # as whatever watches over `ray start --block` does
        await until(lambda: cluster.ready() == REPLICAS)
    assert tally.lost == []
    assert named(REPLICA, worker.processes()) != []


async def test_a_version_is_replaced_on_every_node_but_not_by_a_broken_one(cluster: Cluster) -> None:
    async with constant_load(f"{cluster.url}{QUICK}", REQUEST) as tally:
        code, said = await deploy(cluster, "broken")
        assert (code, "ONNX Runtime cannot load this graph" in said) == (2, True), said
        assert len(tally.answers) == 1
        code, said = await deploy(cluster, "quick-2")
        assert code == 0, said
        await asyncio.sleep(2)
    assert tally.lost == []
    assert len(tally.answers) == 2


async def test_the_workers_serve_while_the_head_is_away_and_it_comes_back(cluster: Cluster) -> None:
    if not cluster.store:
        pytest.skip("needs redis-server, where Ray keeps the head's state")
    async with constant_load(f"{at(cluster.workers[1])}{QUICK}", REQUEST) as tally:
        await until(lambda: tally.answered > 50)
        cluster.head.cut()
        cluster.head.kill()
        await asyncio.sleep(AWAY_S)
        without = tally.answered
        await until(lambda: tally.answered > without + 50)
        # Ray finds nodes by all processes of the machine, and would take the workers for a head that still runs.
        (cluster.head.folder / "ray" / "ray_current_cluster").unlink()
        cluster.head.mend()
        cluster.start_head()
        await until(lambda: cluster.ready() == REPLICAS, timeout_s=240)
        code, said = await deploy(cluster, "quick-3")  # the worker hears from the new head, too
        assert code == 0, said
        await asyncio.sleep(2)
    assert tally.lost == []
    assert len(tally.answers) == 2
