"""What the settings mean to Ray Serve: applications, their prefixes and options, as plain data without Ray."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from service.contract import ModelCard
from service.placement import GATEWAY, Group, place
from service.settings import Autoscaling, Settings

GATEWAY_CPUS = 0.1
# Refusing is our own admission's task: Ray would queue without bound beyond this.
MAX_ONGOING_REQUESTS = 100_000
# How often replicas report to the autoscaler, and over how many seconds it averages.
REPORT_INTERVAL_S, REPORT_MEAN_S = 1.0, 2.0


@dataclass(frozen=True, slots=True)
class Application:
    """An application of Ray Serve with its one deployment, which has the same name.

    Args:
        name: of both.
        kind: what runs in it.
        prefix: every path below it goes there, unless another's prefix is longer; None: no path does.
        group: whose models run in it; None for the gateway.
        settings: as its replicas need them.
        options: of the deployment.
    """

    name: str
    kind: Literal["models", "canary", "gateway"]
    prefix: str | None
    group: Group | None
    settings: Settings
    options: dict[str, Any]

    @property
    def cards(self) -> tuple[ModelCard, ...]:
        """Of its models."""
        return self.group.cards if self.group else ()

    def same_as(self, other: "Application") -> bool:
        """Whether replicas of the one can go on as replicas of the other."""
        return self._decisive() == other._decisive()  # noqa: SLF001 - of the same class

    def _decisive(self) -> tuple[object, ...]:
        if self.group is None:
            return (self.settings.model_dump(),)
        rest = {"models", "groups", "replicas", "num_cpus", "num_gpus", "autoscaling"}
        models = [model for model in self.settings.models if model.replica == self.name or self.kind != "models"]
        own = [model.model_dump(exclude={"previous"}) for model in models]
        options = {key: value for key, value in self.options.items() if key != "ray_actor_options"}
        return self.prefix, self.group, options, own, self.settings.model_dump(exclude=rest)


def applications(settings: Settings, cards: Sequence[ModelCard]) -> tuple[Application, ...]:
    """Every application that the settings mean, the gateway last.

    Args:
        settings: which models, and how.
        cards: of the models, in their order.

    Raises:
        SettingsError: the models cannot be placed as the settings ask.
    """
    groups = place(settings.models, cards)
    return (*_of_groups(settings, cards, groups), _gateway(settings))


def _of_groups(settings: Settings, cards: Sequence[ModelCard], groups: Sequence[Group]) -> Iterator[Application]:
    for group in groups:
        own = settings.of_group(group.name)
        yield Application(group.name, "models", group.prefix, group, own, _options(own))
        if any(model.canary for model in settings.models if model.replica == group.name):
            name = canary_name(group.name)
            fixed = own.model_copy(update={"replicas": 1, "autoscaling": None})
            with_canaries = fixed.model_copy(update={"models": _canaries(settings, cards, group.name)})
            yield Application(name, "canary", None, group, with_canaries, _options(fixed))


def canary_name(group: str) -> str:
    """The application that runs the canaries of a group."""
    return f"{group}-canary"


def _canaries(settings: Settings, cards: Sequence[ModelCard], group: str) -> tuple[Any, ...]:
    """The models with the bundles of a group's canaries in their places, so that each keeps its routes."""
    as_canary = {"replica": canary_name(group), "version": None, "canary": None}  # the version is the stable one's
    return tuple(
        model.model_copy(update={"bundle": model.canary.bundle, "name": card.name, **as_canary})
        if model.canary and model.replica == group
        else model
        for model, card in zip(settings.models, cards, strict=True)
    )


def _gateway(settings: Settings) -> Application:
    fixed = settings.model_copy(update={"replicas": 1, "autoscaling": None, "num_cpus": GATEWAY_CPUS, "num_gpus": 0})
    return Application(GATEWAY, "gateway", "/", None, settings, _options(fixed))


def _options(settings: Settings) -> dict[str, Any]:
    scale: dict[str, Any] = {"num_replicas": settings.replicas}
    if settings.autoscaling is not None:
        scale = {"autoscaling_config": _autoscaling(settings.autoscaling)}
    gpus = {"num_gpus": settings.num_gpus} if settings.num_gpus else {}
    cpus = float(settings.threads) if settings.num_cpus is None else settings.num_cpus
    return scale | {
        "ray_actor_options": {"num_cpus": cpus, **gpus},
        "max_ongoing_requests": MAX_ONGOING_REQUESTS,
        "max_surge_percent": 100,
        "graceful_shutdown_timeout_s": settings.drain_timeout_s,
        "health_check_period_s": 5.0,
        "logging_config": {"enable_access_log": False},  # ours has every request already
    }


def _autoscaling(wanted: Autoscaling) -> dict[str, Any]:
    bounds: dict[str, Any] = {"min_replicas": wanted.min_replicas, "max_replicas": wanted.max_replicas}
    if wanted.min_replicas == 0:
        # The first one shows that the bundle can be served, also where there may be none later. Elsewhere Ray begins
        # with the least by itself, and a new version with as many as the old one has, which this would prevent.
        bounds["initial_replicas"] = 1
    if wanted.policy == "ongoing_requests":
        return bounds
    return bounds | {
        "metrics_interval_s": REPORT_INTERVAL_S,
        "look_back_period_s": REPORT_MEAN_S,
        # Ray puts delays of its own on top of any policy; ours has waited already.
        "upscale_delay_s": 0.0,
        "downscale_delay_s": 0.0,
        "downscale_to_zero_delay_s": 0.0,
        "policy": {
            "policy_function": "service.autoscaling:BacklogPolicy",
            "policy_kwargs": {
                "backlog_s": wanted.backlog_s,
                "down_after_s": wanted.down_after_s,
                "zero_after_s": wanted.zero_after_s,
            },
        },
    }


def serve_config(settings: Settings, cards: Sequence[ModelCard]) -> dict[str, Any]:
    """The config file of Ray Serve (`serve deploy`, KubeRay's `serveConfigV2`) that does what the settings say.

    Raises:
        SettingsError: the models cannot be placed as the settings ask.
    """
    args = {"settings": settings.model_dump(mode="json", exclude_unset=True) | {"models": _plain(settings)}}
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": settings.host, "port": settings.port},
        "applications": [
            {
                "name": application.name,
                "route_prefix": application.prefix,
                "import_path": "service.cluster:application",
                "args": {**args, "application": application.name},
                "deployments": [{"name": application.name, **application.options}],
            }
            for application in applications(settings, cards)
        ],
    }


def _plain(settings: Settings) -> list[dict[str, Any]]:
    return [model.model_dump(mode="json", exclude_unset=True) for model in settings.models]
