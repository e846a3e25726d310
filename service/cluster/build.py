"""From what the settings mean to Ray Serve to its applications, for our own commands and for `serve deploy` alike."""

from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray import serve

from service.changes import reservation
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


def bind(wanted: Application, cpus: float | None = None, initial: int | None = None) -> serve.Application:
    """The application with its deployment.

    Args:
        wanted: what it is.
        cpus: that a replica reserves in place of what its options say.
        initial: how many replicas an autoscaled one begins with in place of what its options say.
    """
    options = dict(wanted.options)
    if cpus is not None:
        options["ray_actor_options"] = {**options["ray_actor_options"], "num_cpus": cpus}
    if initial is not None:
        options["autoscaling_config"] = {**options["autoscaling_config"], "initial_replicas": initial}
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
    share = reservation(
        cores=_cpus(ray.cluster_resources()),  # type: ignore[no-untyped-call]
        free=_cpus(ray.available_resources()) - sum(_given(each) * _most(each) for each in wanted),  # type: ignore[no-untyped-call]
        nodes=sum(node["Alive"] for node in ray.nodes()),  # type: ignore[no-untyped-call]
        starting=sum(_most(each) for each in wanted if _is_shared(each)),
        replicas=sum(_most(each) for each in of_all if each.group is not None),
    )
    running = _running(wanted)
    return [
        serve.RunTarget(
            bind(
                each,
                min(float(each.settings.threads), share) if _is_shared(each) else None,
                _initial(each, running.get(each.name, 0)),
            ),
            each.name,
            each.prefix,
        )
        for each in wanted
    ]


def _cpus(resources: Mapping[str, float]) -> float:
    return resources.get("CPU", 0.0)  # Ray leaves out what there is none of


def _is_shared(wanted: Application) -> bool:
    return wanted.group is not None and wanted.settings.num_cpus is None


def _given(wanted: Application) -> float:
    if wanted.group is None:
        return GATEWAY_CPUS
    return wanted.settings.num_cpus or 0.0


def _most(wanted: Application) -> int:
    scaling = wanted.settings.autoscaling
    return wanted.settings.replicas if scaling is None else scaling.max_replicas


def _initial(wanted: Application, running: int) -> int | None:
    """A group that may have no replica begins with one; a new version of it with as many as serve the old one.

    Without a word about it, which is right for the others, Ray would begin with none.
    """
    scaling = wanted.settings.autoscaling
    if scaling is None or scaling.min_replicas > 0:
        return None
    return min(max(1, running), scaling.max_replicas)


def _running(wanted: Sequence[Application]) -> Mapping[str, int]:
    """How many replicas each of them has that serve."""
    found = serve.status().applications
    return {
        each.name: sum(
            number
            for state, number in found[each.name].deployments[each.name].replica_states.items()
            if state == "RUNNING"
        )
        for each in wanted
        if each.name in found and each.name in found[each.name].deployments
    }
