"""From what the settings mean to Ray Serve to its applications, for our own commands and for `serve deploy` alike."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray import serve

from service.cluster.front import Gateway
from service.cluster.replica import CanaryReplica, ModelReplica
from service.hosting import model_cards
from service.serve_config import GATEWAY_CPUS, Application, applications
from service.settings import Settings

CONSTRUCTOR_TRIES = 2  # a bundle that is broken stays broken


def application(args: Mapping[str, Any]) -> serve.Application:
    """The builder that `heedful config --serve` names as `import_path`.

    Args:
        args: `settings` as plain data, and the name of the `application`.
    """
    settings = Settings.model_validate(args["settings"])
    wanted = {each.name: each for each in applications(settings, model_cards(settings))}
    return bind(wanted[args["application"]])


def bind(wanted: Application, cpus: float | None = None) -> serve.Application:
    """The application with its deployment.

    Args:
        wanted: what it is.
        cpus: that a replica reserves in place of what its options say.
    """
    options = dict(wanted.options)
    if cpus is not None:
        options["ray_actor_options"] = {**options["ray_actor_options"], "num_cpus": cpus}
    deployment = serve.deployment(name=wanted.name, max_constructor_retry_count=CONSTRUCTOR_TRIES, **options)
    if wanted.kind == "canary":
        return deployment(CanaryReplica).bind(wanted.settings, wanted.name)
    replica = Gateway if wanted.kind == "gateway" else ModelReplica
    arguments = () if wanted.kind == "gateway" else (wanted.name,)
    return deployment(serve.ingress()(replica)).bind(wanted.settings, *arguments)


def targets(wanted: Sequence[Application], of_all: Sequence[Application]) -> list[serve.RunTarget]:
    """What `serve.run_many` takes.

    Args:
        wanted: to be started or replaced.
        of_all: everything that shares the cluster with them.
    """
    share = _share(of_all)
    found = []
    for each in wanted:
        threads = float(each.settings.threads)
        is_given = each.group is None or each.settings.num_cpus is not None
        found.append(serve.RunTarget(bind(each, None if is_given else min(threads, share)), each.name, each.prefix))
    return found


def _share(of_all: Sequence[Application]) -> float:
    """An equal part of the cores for each replica, halved, so that an update finds room."""
    cores: float = ray.cluster_resources()["CPU"]  # type: ignore[no-untyped-call]
    replicas = sum(_most(each) for each in of_all if each.group is not None)
    return max(0.01, math.floor((cores - 2 * GATEWAY_CPUS) / (2 * replicas) * 100) / 100)


def _most(wanted: Application) -> int:
    scaling = wanted.settings.autoscaling
    return wanted.settings.replicas if scaling is None else scaling.max_replicas
