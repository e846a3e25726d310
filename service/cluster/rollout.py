"""Bringing what runs to what the settings say: the old replicas serve until the new ones do, and stay if they fail."""

import asyncio
import logging
import re
import time
from collections.abc import Collection, Mapping, Sequence

import httpx
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ApplicationStatus

from models.errors import BundleError
from service.changes import in_order
from service.cluster.build import targets
from service.errors import StartError
from service.hosting import model_cards
from service.serve_config import Application, applications
from service.settings import Settings

logger = logging.getLogger("heedful.cluster")

LOOK_AGAIN_S = 0.05
ROLLOUT_TIMEOUT_S = 600.0
LAST_WORD_S = 10.0  # for a replica to answer 503 after its drain timeout
WAITING_SAID_S = 30.0
ROOM = "see `ray status`, and the settings num_cpus and num_gpus"


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
        for some in in_order(changed, running):
            # Ray gives no prefix away that another application has.
            needed = {each.prefix for each in some}
            if in_the_way := [name for name in gone if running[name].prefix in needed and name not in begun]:
                begun += in_the_way
                _end(in_the_way, now.drain_timeout_s)
            begun += [each.name for each in some]
            _start(some, wanted)
        begun += [name for name in gone if name not in begun]
        for name in gone:
            serve.delete(name, _blocking=False)
    except BaseException:  # an interruption, too
        _back(begun, running)
        raise
    _end(gone, now.drain_timeout_s)  # nothing is left to decide, so that there is no way back from here
    return [*(each.name for each in changed), *gone]


def _start(some: Sequence[Application], of_all: Sequence[Application]) -> None:
    try:
        serve.run_many(targets(some, of_all), wait_for_applications_running=False)
    except RayServeException as error:
        raise StartError(f"Ray Serve refuses this: {' '.join(str(error).split())}") from error
    names = {each.name for each in some}
    give_up = time.monotonic() + ROLLOUT_TIMEOUT_S
    while not all_run(names):
        if time.monotonic() > give_up:
            raise StartError(
                f"{', '.join(sorted(names))} did not start within {ROLLOUT_TIMEOUT_S:g} s; a new replica needs room "
                f"beside the old one: {ROOM}"
            )
        time.sleep(LOOK_AGAIN_S)


def _back(begun: Sequence[str], running: Mapping[str, Application]) -> None:
    """Bring the applications of these names to what runs, or away; return before they are there."""
    for name in begun:
        if name not in running:
            serve.delete(name, _blocking=False)
    # The last first, and one by one: what it took may be what another had.
    for name in reversed(begun):
        if name in running:
            serve.run_many(targets([running[name]], tuple(running.values())), wait_for_applications_running=False)


def _end(names: Sequence[str], drain_timeout_s: float) -> None:
    """Return when these have answered what they had accepted and are gone; what outlasts its drain is left to Ray."""
    for name in names:
        serve.delete(name, _blocking=False)
    give_up = time.monotonic() + drain_timeout_s + LAST_WORD_S
    while time.monotonic() < give_up and not serve.status().applications.keys().isdisjoint(names):
        time.sleep(LOOK_AGAIN_S)


async def ready(settings: Settings, wanted: Sequence[Application], stop: asyncio.Event) -> bool:
    """Wait until every group has answered an example through the front door; False when `stop` was set first.

    Raises:
        BundleError: a replica refused its bundle.
        StartError: an application failed for another reason.
    """
    names = {each.name for each in wanted}
    waiting = [each for each in wanted if each.kind == "models"]
    say_at = time.monotonic() + WAITING_SAID_S
    async with httpx.AsyncClient(base_url=settings.url, timeout=settings.request_timeout_ms / 1e3) as client:
        while waiting and not stop.is_set():
            if await asyncio.to_thread(all_run, names):
                waiting = [each for each in waiting if not await _answers(client, each)]
            if waiting and time.monotonic() > say_at:
                logger.warning("still waiting for %s", await asyncio.to_thread(_what_is_missing, names))
                say_at = time.monotonic() + WAITING_SAID_S
            await asyncio.sleep(LOOK_AGAIN_S)
    return not waiting


def _what_is_missing(names: Collection[str]) -> str:
    """In Ray's words, which say which resources a replica waits for."""
    found = serve.status().applications
    running = [name for name in names if name in found and found[name].status is ApplicationStatus.RUNNING]
    missing = sorted(set(names).difference(running))
    if not missing:
        return "the load balancer to hear of every replica"
    said = [each.message for name in missing if name in found for each in found[name].deployments.values()]
    return "; ".join([", ".join(missing), *filter(None, (" ".join(message.split()) for message in said)), ROOM])


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
