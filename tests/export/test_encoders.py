"""Question answering checkpoints of each encoder family through the whole exporter."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.bundle import Limits
from models.encoder import forward
from models.export.checkpoint import open_checkpoint
from models.export.errors import ExportError
from models.export.parity import FP32_TOLERANCE, random_rows
from models.export.write import export
from models.session import open_session
from models.task import Row
from tests.export.encoders import PACKED, PADDED, TESTED, checkpoint, recipe
from tests.export.exported import Exported


@pytest.fixture(params=TESTED)
def exported(request: pytest.FixtureRequest, exports: Callable[[str], Exported]) -> Exported:
    """Every precision that the family has."""
    return exports(request.param)


def rows(exported: Exported) -> list[Row]:
    """Those of every export, and two that a padded graph gets beside the first: one shorter, one as long."""
    made = random_rows(exported.original.vocabulary, exported.bundle.manifest)
    return [*made, Row(made[0].tokens[2:]), Row(made[0].tokens[::-1].copy())]


def test_every_token_gets_the_checkpoints_logits(exported: Exported) -> None:
    assert exported.parities["fp32"].largest_difference <= FP32_TOLERANCE
    session = open_session(exported.bundle, "fp32", "forward")
    original = exported.original
    answers = [original.answer(row) for row in rows(exported)]
    for name in ("start_logits", "end_logits"):
        assert np.concatenate([answer[name] for answer in answers]).std() > 0.1, "logits without spread prove nothing"
    for expected, found in zip(answers, forward(session, rows(exported)), strict=True):
        assert found.keys() == expected.keys()
        for name, logits in expected.items():
            np.testing.assert_allclose(found[name], logits, atol=FP32_TOLERANCE)


def test_a_row_gets_the_same_alone_and_in_a_crowd(exported: Exported) -> None:
    """Padding-free graphs the same bits; a padded one adds up in another order when it is wider."""
    for precision in exported.parities:
        session = open_session(exported.bundle, precision, "forward")
        for row, crowd in zip(rows(exported), forward(session, rows(exported)), strict=True):
            (alone,) = forward(session, [row])
            for name, logits in alone.items():
                np.testing.assert_allclose(crowd[name], logits, atol=0 if exported.family in PACKED else 1e-5)


def test_int8_stays_near(exported: Exported) -> None:
    """A trained model's error is a tenth of that of random weights, which quantize worst of all."""
    if "int8" in exported.parities:
        assert 0 < exported.parities["int8"].relative_error < 0.25


def test_the_card_says_how_rows_are_laid_out(exported: Exported) -> None:
    card = (exported.bundle.folder / "README.md").read_text()
    assert ("padding-free" in card) == (exported.family in PACKED)
    assert ("padded: rows" in card) == (exported.family in PADDED)


def test_a_padded_family_has_no_int8_and_says_so_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("models.export.precisions.trace")
    made = checkpoint(tmp_path / "checkpoint", "gpt2")
    with pytest.raises(ExportError, match="cannot be made in int8: export it with --precision fp32"):
        export(made, "question-answering", tmp_path / "bundle", recipe(), precisions=("int8",))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_what_torch_cannot_trace_is_refused_in_one_sentence(tmp_path: Path) -> None:
    made = checkpoint(tmp_path / "checkpoint", "xlnet")
    with pytest.raises(ExportError, match=r"this checkpoint's forward cannot be traced by torch: \w") as refused:
        export(made, "question-answering", tmp_path / "bundle", recipe(), precisions=("fp32",))
    assert len(str(refused.value).splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_parts_without_a_packed_form_are_padded(tmp_path: Path) -> None:
    made = checkpoint(tmp_path / "checkpoint", "deberta-v2", conv_kernel_size=3)
    _, opened = open_checkpoint(made)
    assert "padded_tokens" in opened.sources(Limits(max_tokens=40))["forward"].inputs


def test_positions_behind_padding_count_against_the_limit(tmp_path: Path) -> None:
    _, opened = open_checkpoint(checkpoint(tmp_path / "checkpoint", "roberta"))
    assert opened.limits().max_tokens == 128
    with pytest.raises(ValueError, match="the checkpoint has 128 positions, 129 were asked for"):
        opened.sources(Limits(max_tokens=129))
