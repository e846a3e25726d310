"""What an operator can set, with its defaults and bounds; `service.configuration` reads it from where it is kept."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

import models
from models.bundle import MANIFEST, Name, Precision, bundles_in

EMBEDDED_BUNDLES = Path(models.__file__).parent / "bundles"

Folder = Annotated[Path, AfterValidator(Path.absolute)]
Scaled = TypeVar("Scaled", bound=BaseModel)
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]
LogFormat: TypeAlias = Literal["text", "json"]
ReplicaName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Canary(Frozen):
    """Another version of a model that answers a share of its requests, on the cluster.

    Args:
        bundle: its folder; of the same task.
        percent: of the requests; which ones, their request ids decide.
    """

    bundle: Folder
    percent: float = Field(gt=0, le=100)


class ModelSettings(Frozen):
    """One model to serve.

    Args:
        bundle: its folder; a relative path starts at the working directory.
        name: in the route `/v1/{task}/{name}`; the bundle's own unless given.
        precision: of its graphs; chosen for the hardware unless given.
        replica: models that name the same replica share its process and its processor.
        version: that the bundle must have, so that a folder whose content has changed is not served by accident.
        canary: a version that takes a share of the requests.
        previous: the bundle that was served before; `heedful rollback` returns to it.
    """

    bundle: Folder
    name: Name | None = None
    precision: Precision | None = None
    replica: ReplicaName = "models"
    version: str | None = None
    canary: Canary | None = None
    previous: Folder | None = None


class Limits(Frozen):
    """What is taken on before the answer is 413 or 429.

    Args:
        max_body_bytes: of one request.
        max_waiting_rows: that wait for one model, over all callers; requests longer than any one text may be have as
            many of their own.
        max_waiting_tokens: in those rows.
    """

    max_body_bytes: int = Field(2 * 1024 * 1024, gt=0)
    max_waiting_rows: int = Field(4096, gt=0)
    max_waiting_tokens: int = Field(262_144, gt=0)


class Autoscaling(Frozen):
    """How many replicas of a group there are, between two bounds.

    Args:
        policy: `backlog` looks at the seconds of work that wait, `ongoing_requests` is Ray Serve's own policy with its
            own defaults, which counts requests.
        min_replicas: 0 lets the last one go; the first caller then waits until the model is loaded.
        max_replicas: at most so many.
        backlog_s: seconds of work that may wait for each replica before there are more of them.
        down_after_s: seconds for which fewer replicas must have sufficed before they go.
        zero_after_s: seconds without any request before the last one goes.
    """

    policy: Literal["backlog", "ongoing_requests"] = "backlog"
    min_replicas: int = Field(1, ge=0, le=1000)
    max_replicas: int = Field(ge=1, le=1000)
    backlog_s: float = Field(2.0, gt=0, le=3600)
    down_after_s: float = Field(120.0, ge=0, le=86_400)
    zero_after_s: float = Field(600.0, ge=0, le=86_400)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas {self.min_replicas} is more than max_replicas {self.max_replicas}")
        return self


class GroupSettings(Frozen):
    """What one group of models on the cluster has otherwise than the others; None is what `Settings` says."""

    replicas: int | None = Field(None, ge=1, le=1000)
    num_cpus: float | None = Field(None, gt=0, le=1024)
    num_gpus: float | None = Field(None, ge=0, le=64)
    gpu_memory_mb: int | None = Field(None, ge=1)
    limits: Limits | None = None
    autoscaling: Autoscaling | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        return _fixed_or_scaled(self)


def _fixed_or_scaled(scale: Scaled) -> Scaled:
    if {"replicas", "autoscaling"} <= scale.model_fields_set:
        raise ValueError("replicas and autoscaling exclude each other; autoscaling has min_replicas and max_replicas")
    return scale


def _some(listed: tuple[ModelSettings, ...]) -> tuple[ModelSettings, ...]:
    if not listed:
        raise ValueError(
            f"name at least one bundle here, or in `bundles` a folder that holds folders with a {MANIFEST}"
        )
    return listed


def _every_bundle(validated: dict[str, Any]) -> tuple[ModelSettings, ...]:
    return tuple(ModelSettings(bundle=folder) for folder in bundles_in(validated["bundles"]))


class Settings(BaseSettings):
    """Every setting with its default; `service.configuration` reads them from where operators keep them.

    Args:
        host: address to listen on.
        port: TCP port to listen on.
        bundles: the folder whose every bundle is served when `models` is not set.
        models: what to serve; the first model of a task is the default of `/v1/{task}`.
        threads: of ONNX Runtime for each model.
        slots: rows that a generating model decodes side by side.
        replicas: of every group of models, on the cluster.
        cache_mb: megabytes of answers that each model keeps in memory for equal requests; 0 computes every answer.
        num_cpus: that a replica reserves there; a core for each thread, or a share of what there is, unless given.
        num_gpus: that a replica reserves; 0.25 lets four share a GPU.
        gpu_memory_mb: megabytes of a GPU that all models of a replica may take together; the part that `num_gpus` says
            unless given.
        autoscaling: in place of `replicas`.
        groups: what single groups have otherwise, by the name that models give as their `replica`.
        ray_address: of a running Ray cluster to serve on, as HOST:PORT or `auto`; one of its own unless given.
        request_timeout_ms: how long a request may take when its caller sends no `X-Request-Timeout-Ms`.
        drain_timeout_s: seconds that accepted requests get to finish after SIGTERM.
        log_level: from which on the log speaks; `info` has a line for each request.
        log_format: lines for people, or a JSON object on each line.
        log_text: the log also has the texts of requests; otherwise it never does.
    """

    model_config = SettingsConfigDict(env_prefix="HEEDFUL_", env_nested_delimiter="__", extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", min_length=1)
    port: int = Field(8000, ge=1, le=65535)
    bundles: Folder = EMBEDDED_BUNDLES
    models: Annotated[tuple[ModelSettings, ...], AfterValidator(_some)] = Field(default_factory=_every_bundle)
    threads: int = Field(1, ge=1, le=256)
    slots: int = Field(32, ge=1, le=4096)
    replicas: int = Field(1, ge=1, le=1000)
    cache_mb: int = Field(0, ge=0, le=1_000_000)
    num_cpus: float | None = Field(None, gt=0, le=1024)
    num_gpus: float = Field(0, ge=0, le=64)
    gpu_memory_mb: int | None = Field(None, ge=1)
    autoscaling: Autoscaling | None = None
    groups: dict[ReplicaName, GroupSettings] = Field(default_factory=dict)
    ray_address: str | None = Field(None, min_length=1)
    limits: Limits = Limits()
    request_timeout_ms: int = Field(60_000, ge=1, le=600_000)
    drain_timeout_s: float = Field(30.0, gt=0, le=3600)
    log_level: LogLevel = "info"
    log_format: LogFormat = "text"
    log_text: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        return _fixed_or_scaled(self)

    @field_validator("groups")
    @classmethod
    def _of_models(cls, groups: dict[str, GroupSettings], info: ValidationInfo) -> dict[str, GroupSettings]:
        known = {model.replica for model in info.data.get("models", ())}
        for name in groups:
            if known and name not in known:
                raise ValueError(f"no model has the replica {name!r}; there are {', '.join(sorted(known))}")
        return groups

    def of_group(self, name: str) -> "Settings":
        """The settings with what the group of this name has otherwise."""
        group = self.groups.get(name, GroupSettings())
        own = {key: value for key in GroupSettings.model_fields if (value := getattr(group, key)) is not None}
        if "replicas" in own:
            own["autoscaling"] = None
        return self.model_copy(update=own)

    @property
    def url(self) -> str:
        """Where a client on this machine reaches the service."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - compared, not bound
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the library passes it by name
        init_settings: PydanticBaseSettingsSource,
        *_: Any,
        **__: Any,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is passed: `service.configuration` orders the sources, so that a test sees no environment."""
        return (init_settings,)
