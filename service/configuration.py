"""Where settings come from: `heedful.yaml`, the environment over it, flags over both; and what is wrong with them."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_settings import EnvSettingsSource
from pydantic_settings import SettingsError as SourceError

from models.bundle import Manifest, read_manifest
from models.errors import BundleError
from service.errors import SettingsError
from service.settings import Autoscaling, Canary, GroupSettings, Limits, ModelSettings, Settings
from service.yaml_source import YamlSource, read_yaml


def load_settings(config: Path | None = None, **flags: object) -> Settings:
    """Merge the defaults, the file, the environment (`HEEDFUL_PORT`, `HEEDFUL_LIMITS__MAX_BODY_BYTES`) and the flags.

    The plain variable `PORT`, which many hosts set, counts as `HEEDFUL_PORT` where that is absent.

    Args:
        config: a YAML file with the fields of `Settings`.
        flags: fields of `Settings`; None means not given.

    Raises:
        SettingsError: a source cannot be read, a key is unknown or a value does not fit.
    """
    file = read_yaml(config) if config else None
    environment = _environment()
    given = {name: value for name, value in flags.items() if value is not None}
    values = _merge(_merge(file.values if file else {}, environment), given)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_sentence(error, file, (given, environment))) from None
    if file is not None and "models" not in environment:
        _check_models(settings, file)
    return settings


def _check_models(settings: Settings, file: YamlSource) -> None:
    """Name the line of what the bundles themselves say against the settings."""
    first: dict[tuple[str, str], int] = {}
    for index, model in enumerate(settings.models if "models" in file.values else ()):
        manifest = _manifest(model.bundle, file, "models", index, "bundle")
        task = manifest.task
        if model.version not in {None, manifest.version}:
            where = file.where(["models", index, "version"])
            raise SettingsError(
                f"{where}: setting models.{index}.version is {model.version!r}, but {model.bundle} is version "
                f"{manifest.version!r}"
            )
        if model.canary is not None:
            other = _manifest(model.canary.bundle, file, "models", index, "canary", "bundle")
            if other.task != task:
                where = file.where(["models", index, "canary", "bundle"])
                raise SettingsError(f"{where}: the canary is a model for {other.task}, the model one for {task}")
        name = model.name or manifest.name
        if (earlier := first.setdefault((task, name), index)) != index:
            raise SettingsError(
                f"{file.where(['models', index])}: a second {task} model named {name!r}; the first is in line "
                f"{file.where(['models', earlier]).rpartition(':')[2]}, give one of them another name"
            )


def _manifest(bundle: Path, file: YamlSource, *keys: int | str) -> Manifest:
    try:
        return read_manifest(bundle)
    except BundleError as error:
        setting = ".".join(map(str, keys))
        raise SettingsError(f"{file.where(keys)}: setting {setting}: {error}") from None


def _environment() -> dict[str, Any]:
    given = {name: value for name, value in os.environ.items() if not _of_kubernetes(name, value)}
    _check_names(given)
    try:
        values = EnvSettingsSource(Settings)()
    except SourceError as error:
        raise SettingsError(f"environment: {error}, expected JSON") from None
    if "port" in values and _of_kubernetes(f"{_PREFIX}PORT", values["port"]):
        del values["port"]
    return ({"port": given["PORT"]} if "PORT" in given else {}) | values


_PREFIX = str(Settings.model_config["env_prefix"])
_OF_A_SERVICE = re.compile(r"(_SERVICE_(HOST|PORT(_\w+)?)|_PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$")


def _of_kubernetes(name: str, value: str) -> bool:
    """Whether Kubernetes tells every pod so of a Service; those of a release named heedful begin as our own do."""
    found = _OF_A_SERVICE.search(name) if name.startswith(_PREFIX) else None
    return found is not None and (found[0] != "_PORT" or "://" in value)


def _check_names(given: Iterable[str]) -> None:
    """Refuse a variable that begins as ours do and is none: a slip of the pen would leave the default in force."""
    known = {field.upper() for field in Settings.model_fields}
    inner = {f"{of}__{field}".upper() for of in ("limits", "autoscaling") for field in _NESTED[of].model_fields}
    for name in given:
        if not name.upper().startswith(_PREFIX):
            continue
        wanted = name.upper().removeprefix(_PREFIX)
        setting, *below = wanted.split("__")
        if setting in known and (not below or setting.lower() in _NESTED):
            continue
        near = get_close_matches(wanted, known | inner, n=1)
        next_step = f"did you mean {_PREFIX}{near[0]}?" if near else f"the settings are {', '.join(_fields_around(()))}"
        raise SettingsError(f"environment: the variable {name} is no setting; {next_step}")


def _merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        key: _merge(low[key], value)
        for key, value in high.items()
        if isinstance(value, dict) and isinstance(low.get(key), dict)
    }
    return {**low, **high, **both}


def _sentence(error: ValidationError, file: YamlSource | None, over: Sequence[Mapping[str, Any]]) -> str:
    """The first thing that is wrong, with its line where the file says it and no source over the file does."""
    first = error.errors(include_url=False)[0]
    keys = [key for key in first["loc"] if key != "[key]"]
    setting = ".".join(str(key) for key in keys)
    prefix = ""
    if file is not None and keys and keys[0] in file.values and not any(_has(source, keys) for source in over):
        prefix = f"{file.where(keys)}: "
    if first["type"] == "extra_forbidden":
        known = ", ".join(_fields_around(keys))
        return f"{prefix}setting {setting} is unknown; the settings{' there' if len(keys) > 1 else ''} are {known}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] in {"missing", "value_error"}:
        return f"{prefix}setting {setting}: {message}" if setting else f"{prefix}{message}"
    return f"{prefix}setting {setting}: {message}, got {first['input']!r}"


def _has(source: Mapping[str, Any], keys: Sequence[int | str]) -> bool:
    found: Any = source
    for key in keys:
        if not isinstance(found, Mapping) or key not in found:
            return found is not source and not isinstance(found, Mapping)
        found = found[key]
    return True


def _fields_around(keys: Sequence[int | str]) -> Iterable[str]:
    """The settings beside the last key."""
    model: type[BaseModel] = Settings
    for key in keys[:-1]:
        model = _NESTED.get(str(key), model)
    return model.model_fields


_NESTED: Mapping[str, type[BaseModel]] = {
    "models": ModelSettings,
    "canary": Canary,
    "limits": Limits,
    "autoscaling": Autoscaling,
    "groups": GroupSettings,
}
