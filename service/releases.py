"""Versions of models that come and go: from the settings that run to those that shall run; pure."""

import hashlib
from collections.abc import Sequence
from os.path import normpath
from pathlib import Path

from pydantic import ValidationError

from service.contract import ModelCard
from service.errors import UsageError
from service.settings import Canary, ModelSettings, Settings

SHARES = 10_000  # percentages count to two decimals


def goes_to_canary(request_id: str, percent: float) -> bool:
    """Whether the canary answers this request: the same for the same id, on every replica."""
    if percent <= 0:
        return False
    digest = hashlib.sha256(request_id.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") % SHARES < percent * SHARES / 100


def check_name(name: str, bundle: Path, task: str) -> None:
    """Whether a bundle can be deployed under this name at all, whatever runs.

    Args:
        name: `MODEL` or `TASK/MODEL`.
        bundle: its folder.
        task: what the bundle is a model for.

    Raises:
        UsageError: no model can have this name, or it says another task than the bundle.
    """
    said, _, short = name.rpartition("/")
    if said not in {"", task}:
        raise UsageError(f"{bundle} is a model for {task}, but {name} says {said}; call it {task}/{short}")
    try:
        ModelSettings(bundle=bundle, name=short)
    except ValidationError:
        raise UsageError(
            f"no model can be named {short!r}: a name has 1 to 64 letters, digits, dots, hyphens and underscores, and "
            "begins with a letter or a digit"
        ) from None


def deployed(
    settings: Settings,
    cards: Sequence[ModelCard],
    name: str,
    bundle: Path,
    task: str,
    *,
    canary_percent: float | None = None,
) -> Settings:
    """With another bundle for the model of this name, or with a new model in a replica of its own.

    Args:
        settings: that run now.
        cards: of their models, in their order.
        name: `MODEL` or `TASK/MODEL`.
        bundle: its folder.
        task: what the bundle is a model for.
        canary_percent: of the requests that the bundle shall answer beside the version that there is; None for all.

    Raises:
        UsageError: the name is ambiguous or that of a model for another task, no model can have it, the model is served
            from this folder already, or a canary is asked for where there is no model yet.
    """
    check_name(name, bundle, task)
    index = _find(cards, name)
    if index is None:
        if canary_percent is not None:
            raise UsageError(f"no model is named {name!r}, so it can have no canary; {_named(cards)}")
        short = name.rpartition("/")[2]
        new = ModelSettings(bundle=bundle, name=short, replica=_free_replica(settings, short))
        return settings.model_copy(update={"models": (*settings.models, new)})
    if cards[index].task != task:
        other = cards[index].task
        raise UsageError(
            f"{bundle} is a model for {task}, but {name} is one for {other}; to add it, call it {task}/{name}"
        )
    old = settings.models[index]
    _check_folder(old, name, bundle, canary_percent)
    if canary_percent is not None:
        return _with(settings, index, canary=Canary(bundle=bundle, percent=canary_percent))
    return _with(settings, index, bundle=bundle, name=cards[index].name, version=None, canary=None, previous=old.bundle)


def _check_folder(model: ModelSettings, name: str, bundle: Path, canary_percent: float | None) -> None:
    """Refuse a folder from which the same is served already: nothing would be replaced, and yet it would be done.

    Whether its content is another now, nobody can tell: what runs has read it, and replicas that start later load what
    lies there then. The canary's folder may get another share or all requests, and the folder before may come back.
    """
    wanted, served = normpath(bundle), name
    if wanted != normpath(model.bundle):
        if model.canary is None or (wanted, canary_percent) != (normpath(model.canary.bundle), model.canary.percent):
            return
        served = f"the canary of {name}"
    raise UsageError(
        f"{served} is served from {bundle} already; to deploy another version, export it to another folder"
    )


def rolled_back(settings: Settings, cards: Sequence[ModelCard], name: str) -> Settings:
    """Without the canary where there is one, else with the bundle that was served before.

    Raises:
        UsageError: no such model, or nothing to return to.
    """
    index = _index(cards, name)
    model = settings.models[index]
    if model.canary is not None:
        return _with(settings, index, canary=None)
    if model.previous is None:
        raise UsageError(f"the model {name!r} has neither a canary nor a version before this one to return to")
    return _with(settings, index, bundle=model.previous, version=None, previous=model.bundle)


def removed(settings: Settings, cards: Sequence[ModelCard], name: str) -> Settings:
    """Without the model of this name.

    Raises:
        UsageError: no such model, or it is the last one.
    """
    index = _index(cards, name)
    if len(settings.models) == 1:
        raise UsageError(f"{name!r} is the only model; stop the service instead")
    models = settings.models[:index] + settings.models[index + 1 :]
    left = {model.replica for model in models}
    groups = {group: own for group, own in settings.groups.items() if group in left}
    return settings.model_copy(update={"models": models, "groups": groups})


def _with(settings: Settings, index: int, **changes: object) -> Settings:
    models = list(settings.models)
    models[index] = models[index].model_copy(update=changes)
    return settings.model_copy(update={"models": tuple(models)})


def _index(cards: Sequence[ModelCard], name: str) -> int:
    index = _find(cards, name)
    if index is None:
        raise UsageError(f"no model is named {name!r}; {_named(cards)}")
    return index


def _find(cards: Sequence[ModelCard], name: str) -> int | None:
    task, _, short = name.rpartition("/")
    found = [index for index, card in enumerate(cards) if card.name == short and task in {"", card.task}]
    if len(found) > 1:
        both = " or ".join(f"{cards[index].task}/{short}" for index in found)
        raise UsageError(f"several models are named {short!r}; say {both}")
    return found[0] if found else None


def _named(cards: Sequence[ModelCard]) -> str:
    return f"there are {', '.join(f'{card.task}/{card.name}' for card in cards)}"


def _free_replica(settings: Settings, name: str) -> str:
    """A name that Ray Serve takes for an application and that no group has."""
    wanted = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in name.lower())[:28].strip(
        "-"
    )
    taken = {model.replica for model in settings.models}
    numbered = (wanted if number == 1 else f"{wanted}-{number}" for number in range(1, len(taken) + 2))
    return next(each for each in numbered if each not in taken)
