"""What an operator can set: `heedful.yaml`, the environment over the file, and the command's flags over both."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as SourceError

import models
from models.bundle import MANIFEST, Name, Precision, bundles_in

EMBEDDED_BUNDLES = Path(models.__file__).parent / "bundles"

Folder = Annotated[Path, AfterValidator(Path.absolute)]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]
LogFormat: TypeAlias = Literal["text", "json"]
ReplicaName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]


class SettingsError(Exception):
    """A setting cannot be used; one sentence that names it."""


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSettings(Frozen):
    """One model to serve.

    Args:
        bundle: its folder; a relative path starts at the working directory.
        name: in the route `/v1/{task}/{name}`; the bundle's own unless given.
        precision: of its graphs; chosen for the hardware unless given.
        replica: models that name the same replica share its process and its processor.
    """

    bundle: Folder
    name: Name | None = None
    precision: Precision | None = None
    replica: ReplicaName = "models"


class Limits(Frozen):
    """What is taken on before the answer is 413 or 429.

    Args:
        max_body_bytes: of one request.
        max_waiting_rows: that wait for one model, over all callers.
        max_waiting_tokens: in those rows.
    """

    max_body_bytes: int = Field(2 * 1024 * 1024, gt=0)
    max_waiting_rows: int = Field(4096, gt=0)
    max_waiting_tokens: int = Field(262_144, gt=0)


def _some(listed: tuple[ModelSettings, ...]) -> tuple[ModelSettings, ...]:
    if not listed:
        raise ValueError(
            f"name at least one bundle here, or in `bundles` a folder that holds folders with a {MANIFEST}"
        )
    return listed


def _every_bundle(validated: dict[str, Any]) -> tuple[ModelSettings, ...]:
    return tuple(ModelSettings(bundle=folder) for folder in bundles_in(validated["bundles"]))


class Settings(BaseSettings):
    """Every setting with its default; `load_settings` reads them from where operators keep them.

    Args:
        host: address to listen on.
        port: TCP port to listen on.
        bundles: the folder whose every bundle is served when `models` is not set.
        models: what to serve; the first model of a task is the default of `/v1/{task}`.
        threads: of ONNX Runtime for each model.
        slots: rows that a generating model decodes side by side.
        replicas: of every group of models, on the cluster.
        cache_mb: megabytes of answers that each model keeps in memory for equal requests; 0 computes every answer.
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
    limits: Limits = Limits()
    request_timeout_ms: int = Field(60_000, ge=1, le=600_000)
    drain_timeout_s: float = Field(30.0, gt=0, le=3600)
    log_level: LogLevel = "info"
    log_format: LogFormat = "text"
    log_text: bool = False

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
        """Only what is passed: `load_settings` puts the sources in their order, so that a test sees no environment."""
        return (init_settings,)


def load_settings(config: Path | None = None, **flags: object) -> Settings:
    """Merge the defaults, the file, the environment (`HEEDFUL_PORT`, `HEEDFUL_LIMITS__MAX_BODY_BYTES`) and the flags.

    The plain variable `PORT`, which many hosts set, counts as `HEEDFUL_PORT` where that is absent.

    Args:
        config: a YAML file with the fields of `Settings`.
        flags: fields of `Settings`; None means not given.

    Raises:
        SettingsError: a source cannot be read, a key is unknown or a value does not fit.
    """
    values = _merge(_file(config) if config else {}, _environment())
    values = _merge(values, {name: value for name, value in flags.items() if value is not None})
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_sentence(error)) from None


def _file(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise SettingsError(f"{path} must hold settings as `name: value`, got {content!r}")
    return content


def _environment() -> dict[str, Any]:
    try:
        values = EnvSettingsSource(Settings)()
    except SourceError as error:
        raise SettingsError(f"environment: {error}, expected JSON") from None
    return ({"port": os.environ["PORT"]} if "PORT" in os.environ else {}) | values


def _merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        key: _merge(low[key], value)
        for key, value in high.items()
        if isinstance(value, dict) and isinstance(low.get(key), dict)
    }
    return {**low, **high, **both}


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = ", ".join(Settings.model_fields)
        return f"setting {key} is unknown; the settings are {known}"
    message = first["msg"].removeprefix("Value error, ")
    return f"setting {key}: {message}, got {first['input']!r}"
