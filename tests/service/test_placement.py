"""Placement: every path reaches the replica of its model, and what Ray Serve could not route is refused."""

from pathlib import Path

import pytest

from service.errors import SettingsError
from service.hosting import model_cards
from service.placement import place
from service.settings import ModelSettings, Settings
from tests.tiny import write_bundle


def placed(tmp_path: Path, *wanted: tuple[str, str]) -> dict[str, tuple[str, list[str]]]:
    """Groups by name: prefix and models, for (model, replica) pairs of one task."""
    models = tuple(
        ModelSettings(bundle=write_bundle(tmp_path / name, name), replica=replica) for name, replica in wanted
    )
    groups = place(models, model_cards(Settings(models=models)))
    return {group.name: (group.prefix, [card.name for card in group.cards]) for group in groups}


def test_models_share_one_group_at_v1_by_default(tmp_path: Path) -> None:
    assert placed(tmp_path, ("a", "models"), ("b", "models")) == {"models": ("/v1", ["a", "b"])}


def test_a_single_model_beside_the_default_has_its_own_path(tmp_path: Path) -> None:
    assert placed(tmp_path, ("a", "one"), ("b", "two"), ("c", "one")) == {
        "one": ("/v1/recommendation", ["a", "c"]),
        "two": ("/v1/recommendation/b", ["b"]),
    }


def test_the_default_alone_serves_the_task(tmp_path: Path) -> None:
    assert placed(tmp_path, ("a", "one"), ("b", "two")) == {
        "one": ("/v1/recommendation", ["a"]),
        "two": ("/v1/recommendation/b", ["b"]),
    }


def test_two_groups_under_one_prefix_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="replicas one and two would both serve /v1/recommendation"):
        placed(tmp_path, ("a", "one"), ("b", "two"), ("c", "two"))


def test_the_gateway_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="'gateway' is taken"):
        placed(tmp_path, ("a", "gateway"), ("b", "other"))


def test_a_group_of_several_tasks_serves_v1_and_keeps_its_paths(tmp_path: Path) -> None:
    models = [ModelSettings(bundle=tmp_path, replica=replica) for replica in ("rest", "rest", "alone")]
    own = (ModelSettings(bundle=write_bundle(tmp_path / "x", "x")),)
    (card,) = model_cards(Settings(models=own))
    cards = [
        card,
        card.model_copy(
            update={"task": "translation", "name": "t", "routes": ("/v1/translation", "/v1/translation/t")}
        ),
        card.model_copy(update={"name": "y", "routes": ("/v1/recommendation/y",)}),
    ]
    assert [(group.name, group.prefix) for group in place(models, cards)] == [
        ("rest", "/v1"),
        ("alone", "/v1/recommendation/y"),
    ]


def test_a_path_that_would_reach_another_replica_is_refused(tmp_path: Path) -> None:
    models = [ModelSettings(bundle=tmp_path, replica=replica) for replica in ("alone", "rest", "rest")]
    (card,) = model_cards(Settings(models=(ModelSettings(bundle=write_bundle(tmp_path / "x", "x")),)))
    cards = [
        card,
        card.model_copy(
            update={"task": "translation", "name": "t", "routes": ("/v1/translation", "/v1/translation/t")}
        ),
        card.model_copy(update={"name": "y", "routes": ("/v1/recommendation/y",)}),
    ]
    words = "/v1/recommendation/y belongs to replica rest, but replica alone serves everything below /v1/recommendation"
    with pytest.raises(SettingsError, match=words):
        place(models, cards)
