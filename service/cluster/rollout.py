"""Bringing what runs to what the settings say: the old replicas serve until the new ones do, and stay if they fail."""

import asyncio
import logging
import re
import time
from collections.abc import Collection, Mapping, Sequence

import httpx
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.schema import ApplicationStatus

from models.errors import BundleError
from service.cluster.build import targets
from service.errors import StartError
from service.hosting import model_cards
from service.serve_config import Application, applications
from service.settings import Settings

logger = logging.getLogger("heedful.cluster")

LOOK_AGAIN_S = 0.05
ROLLOUT_TIMEOUT_S = 600.0


def deploy(settings: Settings, wanted: Sequence[Application]) -> None:
    """Start Ray Serve where it does not run, and every application; return before they are ready."""
    serve.start(http_options=HTTPOptions(host=settings.host, port=settings.port))
    serve.run_many(targets(wanted, wanted), wait_for_applications_running=False)


def replace(now: Settings, then: Settings) -> list[str]:
    """Bring a running service from some settings to others, and return when it has arrived.

    Groups that are the same in both are left alone. When a new replica does not start, or the command is interrupted,
    what has been changed is changed back: replicas and gateway agree, and a later failure of an old replica does not
    start a broken one in its place.

    Returns:
        Names of the applications that were started, replaced or removed.

    Raises:
        BundleError: a replica refused its bundle; what ran before runs.
        SettingsError: the models cannot be placed as the settings ask.
        StartError: an application did not start; what ran before runs.
    """
    running = {each.name: each for each in applications(now, model_cards(now))}
    wanted = applications(then, model_cards(then))
    changed = [each for each in wanted if not (each.name in running and each.same_as(running[each.name]))]
    gone = [name for name in running if name not in {each.name for each in wanted}]
    begun: list[str] = []
    try:
        # A canary before the replicas that send it requests; the gateway last, when it can show what is there.
        for kind in ("canary", "models", "gateway"):
            some = [each for each in changed if each.kind == kind]
            begun += [each.name for each in some]
            _start(some, wanted)
        for name in gone:
            begun.append(name)
            serve.delete(name, _blocking=False)
    except BaseException:  # an interruption, too
        _back(begun, running)
        raise
    for name in gone:  # nothing is left to decide, so that there is no way back from here
        serve.delete(name)
    return [*(each.name for each in changed), *gone]


def _start(some: Sequence[Application], of_all: Sequence[Application]) -> None:
    if not some:
        return
    serve.run_many(targets(some, of_all), wait_for_applications_running=False)
    names = {each.name for each in some}
    give_up = time.monotonic() + ROLLOUT_TIMEOUT_S
    while not all_run(names):
        if time.monotonic() > give_up:
            raise StartError(
                f"{', '.join(sorted(names))} did not start within {ROLLOUT_TIMEOUT_S:g} s; a new replica needs room "
                "beside the old one: see `ray status`, and the settings num_cpus and num_gpus"
            )
        time.sleep(LOOK_AGAIN_S)


def _back(begun: Sequence[str], running: Mapping[str, Application]) -> None:
    """Bring the applications of these names to what runs, or away; return before they are there."""
    for name in begun:
        if name not in running:
            serve.delete(name, _blocking=False)
    if restored := [running[name] for name in begun if name in running]:
        serve.run_many(targets(restored, tuple(running.values())), wait_for_applications_running=False)


async def ready(settings: Settings, wanted: Sequence[Application], stop: asyncio.Event) -> bool:
    """Wait until every group has answered an example through the front door; False when `stop` was set first.

    Raises:
        BundleError: a replica refused its bundle.
        StartError: an application failed for another reason.
    """
    names = {each.name for each in wanted}
    waiting = [each for each in wanted if each.kind == "models"]
    async with httpx.AsyncClient(base_url=settings.url, timeout=settings.request_timeout_ms / 1e3) as client:
        while waiting and not stop.is_set():
            if await asyncio.to_thread(all_run, names):
                waiting = [each for each in waiting if not await _answers(client, each)]
            await asyncio.sleep(LOOK_AGAIN_S)
    return not waiting


async def _answers(client: httpx.AsyncClient, application: Application) -> bool:
    """Whether the load balancer has heard of the gateway and of this group."""
    card = application.cards[0]
    try:
        is_ready = await client.get("/readyz")
        return is_ready.is_success and (await client.post(card.routes[0], json=card.example)).is_success
    except httpx.TransportError:
        return False


def all_run(names: Collection[str]) -> bool:
    """Whether every application of these names runs.

    Raises:
        BundleError: a replica refused its bundle.
        StartError: an application failed for another reason.
    """
    found = {name: each for name, each in serve.status().applications.items() if name in names}
    for name, application in found.items():
        if application.status is not ApplicationStatus.DEPLOY_FAILED:
            continue
        messages = [application.message, *(deployment.message for deployment in application.deployments.values())]
        if cause := re.search(r"BundleError: (.*)", "\n".join(messages)):
            raise BundleError(cause[1])
        raise StartError(f"the replica {name} does not start: {application.message}")
    return len(found) == len(names) and all(
        application.status is ApplicationStatus.RUNNING for application in found.values()
    )
