"""The embedded host: every model and every route in one process under uvicorn, for laptops, edge devices and tests."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable

import uvicorn

from service import heap, tracing
from service.gateway import create_app
from service.hosting import LocalHost
from service.settings import Settings

logger = logging.getLogger("heedful.embedded")

# Idle connections that a client keeps open must not hold up the end; what was accepted is answered by then.
CLOSE_CONNECTIONS_S = 2


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: ours drain first, while the socket still answers."""

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        return contextlib.nullcontext()


def run_embedded(settings: Settings, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM, then answer what was accepted, refuse what is new, and return.

    Args:
        settings: which models, and how.
        listener: bound socket; closed on return.
        on_ready: called once, when every model has answered its own example.

    Raises:
        BundleError: a bundle is broken, or a model cannot answer its own example.
    """
    tracing.configure()
    host = LocalHost(settings)
    config = uvicorn.Config(
        create_app(host, settings),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=CLOSE_CONNECTIONS_S,
    )
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_serve(_Server(config), host, listener, on_ready, settings.drain_timeout_s))


async def _serve(
    server: _Server, host: LocalHost, listener: socket.socket, on_ready: Callable[[], None], drain_timeout_s: float
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stop.set)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await host.start()
        heap.settle()
        on_ready()
        await stop.wait()
        try:
            async with asyncio.timeout(drain_timeout_s):
                await host.drain()
        except TimeoutError:
            logger.warning("requests were still running after the drain timeout of %s s and get 503", drain_timeout_s)
            await asyncio.to_thread(host.stop)
    finally:
        server.should_exit = True
        await serving
        host.stop()
