"""A service from its start to its end, and the commands that change it meanwhile."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from service.cluster import rollout
from service.cluster.canary import UNREACHABLE
from service.errors import StartError
from service.hosting import model_cards
from service.placement import GATEWAY
from service.serve_config import Application, applications
from service.settings import Settings

logger = logging.getLogger("heedful.cluster")

ASK_TIMEOUT_S = 30.0


def run_cluster(settings: Settings, run_folder: Path, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM, then answer what was accepted, refuse what is new, end every process and return.

    Args:
        settings: which models, and how.
        run_folder: an empty folder that becomes the working directory.
        on_ready: called once with Ray's address, when every group has answered an example through the front door.

    Raises:
        BundleError: a bundle is broken, or a model cannot answer its own example.
        SettingsError: the models cannot be placed as the settings ask.
        StartError: Ray or a replica does not start.
    """
    wanted = applications(settings, model_cards(settings))
    with _connected(settings.ray_address or "local", run_folder):
        asyncio.run(_serve(settings, wanted, on_ready))


def change_running(address: str, run_folder: Path, change: Callable[[Settings], Settings]) -> list[str]:
    """Change a running service without losing a request.

    Args:
        address: of its Ray cluster.
        run_folder: an empty folder that becomes the working directory.
        change: from the settings that run to those that shall.

    Returns:
        Names of the applications that were started, replaced or removed.

    Raises:
        BundleError: a replica refused its bundle; what ran before runs.
        SettingsError: the models cannot be placed as the settings ask.
        StartError: there is no such cluster, no Heedful on it, another command changes it, or an application did not
            start.
    """
    with _connected(address, run_folder), alone():
        _interrupted_by_a_closed_terminal()
        now = asyncio.run(_settings_that_run())
        return rollout.replace(now, change(now))


def _interrupted_by_a_closed_terminal() -> None:
    """As by SIGINT, so that what has been changed is changed back; unless the command shall outlive its terminal."""
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)


@contextmanager
def _connected(address: str, run_folder: Path) -> Iterator[None]:
    """Ray's driver, from a working directory that is empty.

    That comes first on the workers' path, so that a folder `models` where the operator stands would be imported in
    place of ours.
    """
    os.chdir(run_folder)
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    is_own = address == "local"
    options: dict[str, Any] = {"include_dashboard": False} if is_own else {"log_to_driver": False}
    try:
        ray.init(address=address, logging_level=logging.ERROR, **options)
    except Exception as error:  # Ray raises no narrower class when its processes are not up within 30 s
        if is_own:
            detail = f"Ray does not start: {error} Its log is in /tmp/ray/session_latest/logs; try again"
        else:
            detail = f"no Ray cluster answers at {address}: {error}"
        raise StartError(" ".join(detail.split())) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def alone() -> Iterator[None]:
    """Of all commands that are connected to the cluster the only one in here.

    An actor's name serves as the lock: Ray gives it away once, and takes it back when the command ends or dies.

    Raises:
        StartError: another command is.
    """
    holder: Any = ray.remote(_Changing)
    try:
        held = holder.options(name="changing", namespace="heedful", num_cpus=0).remote()
    except ValueError:
        raise StartError("another command is changing this service; try again when it is done") from None
    try:
        yield
    finally:
        ray.kill(held)


class _Changing:
    """Holds a name."""


async def _settings_that_run() -> Settings:
    try:
        handle: DeploymentHandle[Any] = await asyncio.to_thread(serve.get_app_handle, GATEWAY)
        async with asyncio.timeout(ASK_TIMEOUT_S):
            settings: Settings = await handle.settings.remote()
    except (RayServeException, TimeoutError) as error:
        raise StartError(f"no Heedful runs on this Ray cluster: {' '.join(str(error).split())}") from error
    return settings


async def _serve(settings: Settings, wanted: Sequence[Application], on_ready: Callable[[str], None]) -> None:
    # After ray.init, which sets handlers of its own.
    stop = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    try:
        await asyncio.to_thread(rollout.deploy, settings, wanted)
        if await rollout.ready(settings, wanted, stop):
            on_ready(ray.get_runtime_context().gcs_address)
            await stop.wait()
            logger.info("draining: accepted requests are answered, new ones refused")
            timeout_s = settings.drain_timeout_s + rollout.LAST_WORD_S
            running = [name for name in (await asyncio.to_thread(serve.status)).applications if name != GATEWAY]
            await asyncio.gather(*(_drain(name, timeout_s) for name in running))
    finally:
        await serve.shutdown_async()  # type: ignore[no-untyped-call]


async def _drain(application: str, timeout_s: float) -> None:
    """Let every replica of the application refuse new requests and answer what it has accepted."""
    try:
        handle: DeploymentHandle[Any] = await asyncio.to_thread(serve.get_app_handle, application)
        await handle.broadcast("drain").results_async(timeout_s=timeout_s, return_exceptions=True)
    except UNREACHABLE as error:
        logger.warning("replica %s did not drain: %s", application, error)
