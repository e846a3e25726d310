"""What Ray reads from the environment when it is imported; it must be set before, and the operator's values win."""

import logging
import os
import random
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from service.logs import OWN_LINES

SWITCH = "RAY_SERVE_ENABLE_HA_PROXY"
_NEVER_GIVEN = (15_000, 30_000)

logger = logging.getLogger("heedful.cluster")


def prepare(run_folder: Path) -> None:
    """Set Ray's environment for one service on this machine, where the operator has not.

    Requests go from HAProxy straight to the replicas, or through Ray's own proxy where there is no HAProxy.

    Args:
        run_folder: for HAProxy's sockets and files; its path must be short, a socket's may have 107 bytes.
    """
    has_haproxy = os.environ.get(SWITCH, "1" if sys.platform == "linux" else "0") == "1"
    if not has_haproxy:
        logger.warning("without HAProxy, which Ray has on Linux, requests pass Ray's own proxy, several times slower")
    chosen = _RAY | (_WITH_HAPROXY | _of_service(run_folder) if has_haproxy else _WITHOUT_HAPROXY)
    for name, value in chosen.items():
        os.environ.setdefault(name, value)


_RAY = {
    "RAY_AUTH_MODE": "token",  # said explicitly, it is on without a warning
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_WORKER_LOG_PREFIX": "1",
    # Of all that Ray's processes print, only our own lines reach the operator; the rest is in Ray's folder of logs.
    "RAY_DEDUP_LOGS_ALLOW_REGEX": OWN_LINES,
    "RAY_DEDUP_LOGS_SKIP_REGEX": "^",
    "RAY_worker_niceness": "0",  # 15 by default: a replica would yield to whatever else the machine does
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # Ten rounds a second, by default, of a controller with nothing to do are a quarter of all that Ray does on an idle
    # machine, and take it from the models. Nothing waits for a round longer than this.
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
    # A replica is told to stop only after it has drained: it needs no further time for the load balancer to notice.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
}

# Throughput mode alone would let every replica listen on the service's port.
_WITHOUT_HAPROXY = {SWITCH: "0", "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0"}


_WITH_HAPROXY = {
    SWITCH: "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": str(min(4, os.cpu_count() or 1)),
    # A request whose replica dies before the first byte is replayed on another: answering has no side effects. HAProxy
    # can replay only what it has read whole, so it is told to; this variable is where options fit in. A machine that is
    # cut off says nothing more, so its kernel is asked every two seconds and given up after ten. Not the health checks
    # decide that (`on-marked-down shutdown-sessions`): a replica that is only slow misses them too, and when all are
    # slow, their requests have nowhere else to go.
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response\n    option http-buffer-request"
    "\n    option srvtcpka\n    srvtcpka-idle 2s\n    srvtcpka-intvl 2s\n    srvtcpka-cnt 4",
    "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "2s",
    # Three times in a row not ready, after 5 s each by default, and one that starts is killed and begun again: a busy
    # machine takes longer.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": "131072",
    # With each change of the replicas a new HAProxy takes over, and the old one answers what it has begun, for two
    # minutes by default; a request may take ten.
    "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "630",
    # Every request would cost a datagram to a Python process; our own metrics count them.
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
}

_OF_SEVERAL_MACHINES = {
    # A kernel is asked only while nothing waits for its acknowledgement: what is sent on an open connection to a
    # machine that has just been cut off would wait for a quarter of an hour (HAProxy 2.8 ignores `tcp-ut` in
    # `default-server`). So each request opens a connection, which is given up after five seconds if none accepts it.
    "RAY_SERVE_HAPROXY_RETRY_ON": _WITH_HAPROXY["RAY_SERVE_HAPROXY_RETRY_ON"] + "\n    option http-server-close",
    # A worker goes on answering while the head is away; by default it ends itself after one minute.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
}


def of_node() -> dict[str, str]:
    """What every node of a cluster with HAProxy needs in its environment before `ray start`."""
    return _RAY | _WITH_HAPROXY | _OF_SEVERAL_MACHINES


def _of_service(folder: Path) -> dict[str, str]:
    """Ports and files that two services on one machine must not share."""
    ports = free_ports()
    return {
        "RAY_SERVE_HAPROXY_STATS_PORT": str(next(ports)),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(next(ports)),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(next(ports)),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(next(ports)),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
    }


def address_file(port: int) -> Path:
    """Where `heedful serve` notes the address of its Ray cluster for the commands that change it later."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "heedful" / f"ray-address-{port}"


@contextmanager
def run_folder() -> Iterator[Path]:
    """An empty folder with a short path, gone at the end."""
    parent = "/tmp" if Path("/tmp").is_dir() else None  # noqa: S108 - the folder in it is the user's alone
    with tempfile.TemporaryDirectory(prefix="heedful-", dir=parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def free_ports() -> Iterator[int]:
    """Different TCP ports that nothing listens on, taken only when they are used.

    They lie below those that systems give to whoever asks for any, or Ray's processes might get one before it is used.
    """
    with ExitStack() as held:
        while True:
            probe = held.enter_context(socket.socket())
            with suppress(OSError):
                probe.bind(("", port := random.randrange(*_NEVER_GIVEN)))  # noqa: S311 - no secret
                yield port
