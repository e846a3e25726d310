"""Which process serves which paths on a cluster; what Ray Serve could not route is refused with one sentence."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from service.contract import ModelCard
from service.errors import SettingsError
from service.settings import ModelSettings

ROOT = "/v1"
GATEWAY = "gateway"


@dataclass(frozen=True, slots=True)
class Group:
    """Models that share a replica, which is one application of Ray Serve.

    Args:
        name: of the application and, in the settings, of the replica.
        prefix: every path below it goes to this application, unless another's prefix is longer.
        cards: of its models.
    """

    name: str
    prefix: str
    cards: tuple[ModelCard, ...]


def place(models: Sequence[ModelSettings], cards: Sequence[ModelCard]) -> tuple[Group, ...]:
    """Group the models by the replica that their settings name, and give each group the prefix that it can have.

    An application has one prefix: `/v1` for a group of several tasks, `/v1/{task}` for models of one task with its
    default among them, `/v1/{task}/{model}` for one model beside the default.

    Args:
        models: in the order of the settings.
        cards: of the same models in the same order.

    Raises:
        SettingsError: two groups would need the same prefix, a path would reach another group than its model's, or a
            group has the gateway's name.
    """
    members: defaultdict[str, list[ModelCard]] = defaultdict(list)
    for model, card in zip(models, cards, strict=True):
        members[model.replica].append(card)
    if GATEWAY in members:
        raise SettingsError(f"setting models: the replica's name {GATEWAY!r} is taken by the gateway; choose another")
    alone = len(members) == 1
    groups = tuple(Group(name, ROOT if alone else _prefix(own), tuple(own)) for name, own in members.items())
    by_prefix: dict[str, Group] = {}
    for group in groups:
        if (other := by_prefix.setdefault(group.prefix, group)) is not group:
            raise SettingsError(
                f"setting models: the replicas {other.name} and {group.name} would both serve {group.prefix}; "
                "give their models one replica, or each model its own"
            )
    for group in groups:
        for route in (route for card in group.cards for route in card.routes):
            if (owner := _owner(route, by_prefix)) is not group:
                raise SettingsError(
                    f"setting models: {route} belongs to replica {group.name}, but replica {owner.name} serves "
                    f"everything below {owner.prefix}; give that model its own replica, or the replica {owner.name}"
                )
    return groups


def _prefix(cards: Sequence[ModelCard]) -> str:
    tasks = {card.task for card in cards}
    if len(tasks) > 1:
        return ROOT
    if len(cards) == 1:
        return min(cards[0].routes, key=len)
    return f"{ROOT}/{cards[0].task}"


def _owner(route: str, by_prefix: Mapping[str, Group]) -> Group:
    """The longest prefix wins, as in the load balancer."""
    path = PurePosixPath(route)
    return next(by_prefix[str(above)] for above in (path, *path.parents) if str(above) in by_prefix)
