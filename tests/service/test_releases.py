"""Models that come and go: what a command makes of the settings, and whom the canary answers."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from models.errors import BundleError
from service.contract import ModelCard
from service.errors import UsageError
from service.hosting import model_cards
from service.releases import deployed, goes_to_canary, removed, rolled_back
from service.serve_config import applications
from service.settings import ModelSettings, Settings
from tests.tiny import write_bundle

TASK = "recommendation"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    for name, version in (("a", "1"), ("b", "1"), ("a2", "2"), ("c", "1")):
        write_bundle(folder / name, name[0], version=version)
    return folder


@pytest.fixture
def settings(folder: Path) -> Settings:
    models = tuple(ModelSettings(bundle=folder / name, replica=name, version="1") for name in ("a", "b"))
    return Settings(models=models)


def cards(settings: Settings) -> Sequence[ModelCard]:
    return model_cards(settings)


def replaced(before: Settings, after: Settings) -> list[str]:
    """Applications that do not stay as they are."""
    old = {each.name: each for each in applications(before, cards(before))}
    new = applications(after, cards(after))
    return [each.name for each in new if not (each.name in old and each.same_as(old[each.name]))]


def test_another_bundle_replaces_its_group_alone_and_rollback_returns(settings: Settings, folder: Path) -> None:
    after = deployed(settings, cards(settings), "a", folder / "a2", TASK)
    assert [model.bundle.name for model in after.models] == ["a2", "b"]
    assert replaced(settings, after) == ["a", "gateway"]
    back = rolled_back(after, cards(after), "recommendation/a")
    assert [model.bundle.name for model in back.models] == ["a", "b"]
    assert replaced(after, back) == ["a", "gateway"]


def test_a_canary_runs_beside_the_stable_version_and_rollback_or_deploy_end_it(
    settings: Settings, folder: Path
) -> None:
    with_canary = deployed(settings, cards(settings), "a", folder / "a2", TASK, canary_percent=10)
    assert replaced(settings, with_canary) == ["a", "a-canary", "gateway"]
    (canary,) = (each for each in applications(with_canary, cards(with_canary)) if each.kind == "canary")
    assert canary.prefix is None
    (card,) = (card for card in model_cards(canary.settings) if card.name == "a")
    assert (card.version, card.routes) == ("2", cards(settings)[0].routes)
    assert rolled_back(with_canary, cards(with_canary), "a").models == settings.models
    whole = deployed(with_canary, cards(with_canary), "a", folder / "a2", TASK)
    assert (whole.models[0].bundle.name, whole.models[0].canary) == ("a2", None)


def test_a_new_model_gets_a_replica_of_its_own_and_a_removed_one_leaves_the_others(
    settings: Settings, folder: Path
) -> None:
    more = deployed(settings, cards(settings), "c", folder / "c", TASK)
    assert replaced(settings, more) == ["c", "gateway"]
    assert removed(more, cards(more), "c").models == settings.models


def test_what_cannot_be_done_is_said(settings: Settings, folder: Path) -> None:
    with pytest.raises(UsageError, match="no model is named 'x'; there are recommendation/a, recommendation/b"):
        removed(settings, cards(settings), "x")
    with pytest.raises(UsageError, match="can have no canary"):
        deployed(settings, cards(settings), "x", folder / "a2", TASK, canary_percent=10)
    with pytest.raises(UsageError, match="no model can be named 'en fr': a name has 1 to 64 letters"):
        deployed(settings, cards(settings), "en fr", folder / "c", TASK)
    with pytest.raises(UsageError, match="neither a canary nor a version"):
        rolled_back(settings, cards(settings), "a")
    alone = removed(settings, cards(settings), "b")
    with pytest.raises(UsageError, match="the only model"):
        removed(alone, cards(alone), "a")


def test_a_folder_that_is_served_already_is_no_other_version(settings: Settings, folder: Path) -> None:
    for percent in (None, 10):
        with pytest.raises(UsageError, match=r"^a is served from .*/b/\.\./a already; .* export it to another folder"):
            deployed(settings, cards(settings), "a", folder / "b/../a", TASK, canary_percent=percent)
    canary = deployed(settings, cards(settings), "a", folder / "a2", TASK, canary_percent=10)
    with pytest.raises(UsageError, match=r"^the canary of a is served from .*/a2 already"):
        deployed(canary, cards(canary), "a", folder / "a2", TASK, canary_percent=10)
    more = deployed(canary, cards(canary), "a", folder / "a2", TASK, canary_percent=20)
    assert more.models[0].canary is not None
    assert more.models[0].canary.percent == 20
    whole = deployed(more, cards(more), "a", folder / "a2", TASK)
    back = deployed(whole, cards(whole), "a", folder / "a", TASK)
    assert [(model.bundle, model.previous) for model in back.models[:1]] == [(folder / "a", folder / "a2")]


def test_a_task_that_is_said_is_the_bundle_s(settings: Settings, folder: Path) -> None:
    with pytest.raises(UsageError, match=r"c is a model for recommendation, but translation/a says translation; call"):
        deployed(settings, cards(settings), "translation/a", folder / "c", TASK)
    with pytest.raises(UsageError, match=r"question-answering, but a is one for recommendation; to add it, call it"):
        deployed(settings, cards(settings), "a", folder / "c", "question-answering")
    both = deployed(settings, cards(settings), "question-answering/a", folder / "c", "question-answering")
    assert [model.name for model in both.models] == [None, None, "a"]
    of_both = [*cards(settings), cards(settings)[0].model_copy(update={"task": "question-answering"})]
    again = deployed(both, of_both, "question-answering/a", folder / "a2", "question-answering")
    assert [model.bundle.name for model in again.models] == ["a", "b", "a2"]


def test_every_process_refuses_a_bundle_of_another_version_than_the_settings_say(
    settings: Settings, folder: Path
) -> None:
    """Wherever the settings come from: a replica on another node reads what lies in the folder there."""
    wrong = settings.models[1].model_copy(update={"bundle": folder / "a2"})
    with pytest.raises(BundleError, match=r"/a2: version '2', but the setting version of this model is '1'"):
        cards(settings.model_copy(update={"models": (settings.models[0], wrong)}))


@pytest.mark.parametrize("percent", [1, 10, 50])
def test_the_canary_gets_its_share_and_the_same_request_goes_the_same_way(percent: float) -> None:
    chosen = [goes_to_canary(f"request-{number}", percent) for number in range(20_000)]
    assert sum(chosen) / len(chosen) == pytest.approx(percent / 100, rel=0.15)
    assert chosen[:100] == [goes_to_canary(f"request-{number}", percent) for number in range(100)]
    assert all(goes_to_canary(f"request-{number}", 100) for number in range(100))
    assert not any(goes_to_canary(f"request-{number}", 0) for number in range(100))
