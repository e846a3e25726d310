"""What is replaced before what, and that the next replica finds room however many came before."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from service.changes import in_order, reservation
from service.errors import SettingsError
from service.hosting import model_cards
from service.serve_config import GATEWAY_CPUS, Application, applications
from service.settings import Settings
from tests.tiny import write_bundle


def placed(folder: Path, *models: dict[str, Any]) -> dict[str, Application]:
    """What runs with models that are all recommenders, the first of them the default."""
    for model in models:
        if not (folder / model["name"]).exists():
            write_bundle(folder / model["name"], model["name"])
    settings = Settings.model_validate({"models": [{**each, "bundle": folder / each["name"]} for each in models]})
    return {each.name: each for each in applications(settings, model_cards(settings))}


def order(then: dict[str, Application], now: dict[str, Application]) -> Sequence[list[str]]:
    changed = [each for each in then.values() if each.name not in now or not each.same_as(now[each.name])]
    return [[each.name for each in some] for some in in_order(changed, now)]


def test_a_canary_comes_before_who_asks_it_and_the_gateway_last(tmp_path: Path) -> None:
    now = placed(tmp_path, {"name": "a", "replica": "x"}, {"name": "b", "replica": "y"})
    canary = {"bundle": tmp_path / "a", "percent": 5}
    then = placed(
        tmp_path, {"name": "a", "replica": "x", "canary": canary}, {"name": "b", "replica": "y", "canary": canary}
    )
    assert order(then, now) == [["x-canary", "y-canary"], ["x", "y"], ["gateway"]]


def test_who_gives_up_a_prefix_comes_before_who_gets_it(tmp_path: Path) -> None:
    a, b, c = {"name": "a", "replica": "x"}, {"name": "b", "replica": "y"}, {"name": "c", "replica": "x"}
    now, then = placed(tmp_path, a, b, c), placed(tmp_path, b, c)
    assert now["x"].prefix == then["y"].prefix
    assert order(then, now) == [["x"], ["y"], ["gateway"]]


def test_an_exchange_of_prefixes_is_refused(tmp_path: Path) -> None:
    a, b = {"name": "a", "replica": "x"}, {"name": "b", "replica": "y"}
    now = placed(tmp_path, a, b)
    swapped = placed(tmp_path, {"name": "b", "replica": "x"}, {"name": "a", "replica": "y"})
    assert order(swapped, now)  # the default stays in x, under another name
    crossed = {"x": now["x"], "y": now["y"]}
    with pytest.raises(SettingsError, match="the replicas x, y would exchange what they serve"):
        list(in_order([_with_prefix(now["x"], now["y"]), _with_prefix(now["y"], now["x"])], crossed))


def _with_prefix(own: Application, other: Application) -> Application:
    return Application(own.name, own.kind, other.prefix, own.group, own.settings, own.options)


@pytest.mark.parametrize("cores", [2, 4, 16])
@pytest.mark.parametrize("replicas", [1, 3])
def test_the_next_update_finds_room_however_many_models_came_before(cores: int, replicas: int) -> None:
    """Each comes beside those that run with what they have reserved; then each of them is updated, and the gateway."""
    running: list[float] = []
    for number in range(1, 20):
        free = cores - GATEWAY_CPUS - sum(running)
        share = reservation(cores=cores, free=free, nodes=1, starting=replicas, replicas=replicas * number)
        assert share > 0
        assert replicas * share + GATEWAY_CPUS <= free + 1e-9
        running += [share] * replicas
        free -= replicas * share
        update = reservation(cores=cores, free=free, nodes=1, starting=replicas, replicas=replicas * number)
        assert replicas * update + GATEWAY_CPUS <= free + 1e-9


def test_what_is_free_in_parts_on_several_nodes_is_enough_for_every_replica() -> None:
    parts = [0.9, 0.9, 0.9, 0.3]
    share = reservation(cores=8, free=sum(parts) + GATEWAY_CPUS, nodes=len(parts), starting=2, replicas=2)
    assert sum(part // share for part in parts) >= 2


def test_one_group_that_is_alone_takes_no_more_than_an_equal_part_which_leaves_room_for_its_update() -> None:
    assert reservation(cores=8, free=7.9, nodes=1, starting=1, replicas=1) == 3.9
    assert reservation(cores=8, free=7.9, nodes=1, starting=2, replicas=2) == 1.95
