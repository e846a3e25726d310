"""Several Ray nodes on one machine, each in a network namespace with an address of its own behind a bridge."""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from service.ray_environment import of_node

RAY = Path(sys.executable).with_name("ray")
GCS_PORT = 6379
OBJECT_STORE_BYTES = 100_000_000
TOKEN = secrets.token_hex(32)  # of the clusters of this run: whoever runs the tests may have none of their own


def why_not() -> str | None:
    """What is missing for network namespaces, as the reason for which tests are skipped."""
    if os.geteuid() != 0:
        return "needs root for network namespaces"
    if not shutil.which("ip"):
        return "needs iproute2"
    probe = f"hf{os.getpid()}p"
    if subprocess.run(["ip", "netns", "add", probe], check=False, capture_output=True).returncode:
        return "may not make network namespaces here"
    _ip("netns", "delete", probe)
    return None


@dataclass(frozen=True)
class Node:
    """A namespace with its address.

    Args:
        name: of the namespace, and of its cable's end at the bridge.
        address: on the bridge's network.
        folder: for what HAProxy and Ray write.
        started: what has been started here.
    """

    name: str
    address: str
    folder: Path
    started: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    def popen(
        self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a command in the namespace."""
        with log.open("ab") as out:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.name, *command],
                stdout=out,
                stderr=subprocess.STDOUT,
                env=self.environment() | dict(environment or {}),
                start_new_session=True,
                cwd=self.folder,
            )
        self.started.append(process)
        return process

    def environment(self) -> dict[str, str]:
        """Namespaces share the file system, so that each node's files need a folder of their own."""
        files = {
            "CONFIG_FILE_LOC": "haproxy.cfg",
            "SOCKET_PATH": "admin.sock",
            "METRICS_SOCKET_PATH": "metrics.sock",
            "SERVER_STATE_FILE": "server-state",
            "SERVER_STATE_BASE": "",
        }
        own = {f"RAY_SERVE_HAPROXY_{name}": str(self.folder / path) for name, path in files.items()}
        return {**os.environ, **of_node(), **own, "RAY_health_check_period_ms": "1000", "RAY_AUTH_TOKEN": TOKEN}

    def start_ray(self, *arguments: str, **environment: str) -> "subprocess.Popen[bytes]":
        """Ray on this node, with two cores, until the process is killed."""
        command = [
            *(str(RAY), "start", *arguments, f"--node-ip-address={self.address}", "--num-cpus=2", "--block"),
            *(f"--object-store-memory={OBJECT_STORE_BYTES}", "--disable-usage-stats"),
        ]
        return self.popen(command, self.folder / "ray.log", environment)

    def is_up(self) -> bool:
        """Whether Ray has started here."""
        said = (self.folder / "ray.log").read_text()
        assert self.started[-1].poll() is None, said
        return "block forever" in said

    def cut(self) -> None:
        """Pull the cable."""
        _ip("link", "set", self.name, "down")

    def mend(self) -> None:
        """Put it back."""
        _ip("link", "set", self.name, "up")

    def processes(self) -> list[psutil.Process]:
        """All that run in the namespace."""
        listed = subprocess.run(["ip", "netns", "pids", self.name], check=False, capture_output=True, text=True)
        found = []
        for pid in listed.stdout.split():
            with suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(int(pid)))
        return found

    def kill(self) -> None:
        """End every process of the namespace at once, as when the machine loses power."""
        for each in self.processes():
            with suppress(psutil.NoSuchProcess):
                each.kill()
        for process in self.started:
            process.wait(30)


@contextmanager
def network(count: int) -> Iterator[list[Node]]:
    """So many nodes at one bridge, which this machine can reach; gone at the end, with all that runs in them."""
    tag = f"hf{os.getpid() % 100_000}"
    subnet = f"10.{100 + os.getpid() % 100}.77"
    with ExitStack() as made:
        _ip("link", "add", tag, "type", "bridge")
        made.callback(_ip, "link", "delete", tag)
        _ip("address", "add", f"{subnet}.1/24", "dev", tag)
        _ip("link", "set", tag, "up")
        nodes = []
        for number in range(count):
            name, address = f"{tag}-{number}", f"{subnet}.{number + 2}"
            folder = Path(made.enter_context(tempfile.TemporaryDirectory(prefix="hf-", ignore_cleanup_errors=True)))
            _ip("netns", "add", name)
            node = Node(name, address, folder)
            made.callback(_ip, "netns", "delete", name)
            made.callback(node.kill)
            _ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("link", "set", name, "master", tag, "up")
            _ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "route", "add", "default", "via", f"{subnet}.1")
            nodes.append(node)
        yield nodes


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
