"""Checkpoints that cannot be exported, and the sentence that says why."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BartConfig, BartForSequenceClassification, BertConfig, BertModel

from models.bundle import Limits
from models.export.checkpoint import open_checkpoint
from models.export.errors import ExportError
from models.export.recipe import read_recipe
from models.export.write import export
from models.task import Generation, Row
from tests.export.checkpoints import SIZES, bart, bert, marian, recipe, sasrec


def test_a_folder_without_a_configuration_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"no checkpoint, config\.json with a model_type is needed"):
        open_checkpoint(tmp_path)


def test_an_unknown_family_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    known = "marian, bart, pointer-bart, mbart, pegasus, m2m_100, t5, mt5, sasrec"
    with pytest.raises(ExportError, match=f"model_type 'vit' is not one of {known}, nor does transformers have"):
        open_checkpoint(tmp_path)


def test_a_pickle_is_never_read(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "sprung",)

    folder = bert(tmp_path / "checkpoint")
    (folder / "model.safetensors").unlink()
    torch.save({"weights": Trap()}, folder / "pytorch_model.bin")
    with pytest.raises(ExportError, match=r"weights in a pickle \(\.bin, \.pt\) are not read"):
        open_checkpoint(folder)
    assert not (tmp_path / "sprung").exists()


def test_broken_weights_are_refused(tmp_path: Path) -> None:
    for folder in (bert(tmp_path / "bert"), sasrec(tmp_path / "sasrec")):
        (folder / "model.safetensors").write_bytes(b"\x00" * 100)
        with pytest.raises(ExportError, match="the checkpoint cannot be loaded"):
            open_checkpoint(folder)


def test_a_head_that_was_never_trained_is_not_made_up(tmp_path: Path) -> None:
    config = BertConfig(vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48)
    BertModel(config).save_pretrained(tmp_path)
    with pytest.raises(ExportError, match=r"weights are missing: qa_outputs\.bias, qa_outputs\.weight"):
        open_checkpoint(tmp_path)


def test_weights_of_another_shape_than_the_configuration_says_are_named(tmp_path: Path) -> None:
    folder = bert(tmp_path / "checkpoint")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 65, "max_position_embeddings": 80}))
    name = r"bert\.embeddings\.position_embeddings\.weight"
    words = rf"{name} is \[64, 32\] in the file and \[80, 32\] by config\.json, and 1 more do not fit either"
    with pytest.raises(ExportError, match=f"the checkpoint cannot be loaded: {words}"):
        open_checkpoint(folder)


def test_a_classifier_is_no_model_that_writes_text(tmp_path: Path) -> None:
    """Its weights are those of one, so that none is missing: the output layer is the embeddings."""
    folder = tmp_path / "classifier"
    BartForSequenceClassification(BartConfig(**SIZES)).save_pretrained(folder)
    with pytest.raises(
        ExportError, match=r"must name a class that writes text, as BartFor.*, got BartForSequenceClass"
    ):
        open_checkpoint(folder)


@pytest.mark.parametrize("architectures", [["BartForConditionalGeneration"], ["BartModel"], [], None])
def test_weights_of_a_writer_are_known_by_their_class_or_taken_for_them(
    tmp_path: Path, architectures: list[str] | None
) -> None:
    folder = bart(tmp_path / "writer")
    config = json.loads((folder / "config.json").read_text()) | {"architectures": architectures}
    (folder / "config.json").write_text(json.dumps(config))
    assert open_checkpoint(folder)[0] == "bart"


def test_a_family_serves_its_own_tasks_only(tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match="a marian checkpoint serves translation or summarization, not recommendation"
    ):
        export(marian(tmp_path / "c"), "recommendation", tmp_path / "b", recipe("recommendation"))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (lambda items: items[:-1], "must list the 50 items that its model scores, got 49"),
        (lambda items: [*items, {"item": "more", "title": "More"}], "50 items that its model scores, got 51"),
        (lambda items: [*items[:-1], items[0]], "each item may stand in a catalogue once, 'item 1' stands there 2"),
    ],
)
def test_items_that_are_not_the_checkpoints_are_refused(
    tmp_path: Path, entries: Callable[[list[Any]], list[Any]], message: str
) -> None:
    path = sasrec(tmp_path / "c") / "items.json"
    path.write_text(json.dumps(entries(json.loads(path.read_text()))))
    with pytest.raises(ExportError, match=rf"items\.json: .*{message}"):
        export(path.parent, "recommendation", tmp_path / "b", recipe("recommendation"))


def test_more_positions_than_the_checkpoint_has_are_refused(tmp_path: Path) -> None:
    for folder, most in ((marian(tmp_path / "marian"), 64), (sasrec(tmp_path / "sasrec"), 24)):
        _, checkpoint = open_checkpoint(folder)
        with pytest.raises(ValueError, match=f"the checkpoint has {most} positions"):
            checkpoint.sources(Limits(max_tokens=65, max_new_tokens=8))


def test_an_unknown_activation_is_refused(tmp_path: Path) -> None:
    _, checkpoint = open_checkpoint(bart(tmp_path / "checkpoint", activation_function="tanh"))
    with pytest.raises(ValueError, match="activation 'tanh' is not one of gelu, gelu_new"):
        checkpoint.sources(Limits(max_tokens=8, max_new_tokens=8))


def test_generation_settings_that_are_not_supported_are_refused(tmp_path: Path) -> None:
    _, checkpoint = open_checkpoint(marian(tmp_path / "checkpoint"))
    checkpoint.model.generation_config.forced_eos_token_id = [1, 2]
    with pytest.raises(ExportError, match=r"must name one forced end token: \[1, 2\]"):
        checkpoint.generation()
    checkpoint.model.generation_config.suppress_tokens = [3]
    checkpoint.model.generation_config.encoder_no_repeat_ngram_size = 2
    with pytest.raises(ExportError, match="not supported: encoder_no_repeat_ngram_size, suppress_tokens"):
        checkpoint.generation()
    checkpoint.model.generation_config.eos_token_id = [1, 2]
    with pytest.raises(ExportError, match="must name one end token"):
        checkpoint.generation()


@pytest.mark.parametrize(
    "settings",
    [
        {"num_beam_groups": 2, "diversity_penalty": 0.5},
        {"penalty_alpha": 0.6, "top_k": 4},
        {"force_words_ids": [[5]]},
        {"typical_p": 0.9},
        {"stop_strings": ["."]},
    ],
)
def test_other_ways_of_decoding_are_refused_by_name(tmp_path: Path, settings: dict[str, Any]) -> None:
    _, checkpoint = open_checkpoint(marian(tmp_path / "checkpoint"))
    for name, value in {"typical_p": 1.0, "min_p": 0.0, "num_beam_groups": 1, **settings}.items():
        setattr(checkpoint.model.generation_config, name, value)
    with pytest.raises(ExportError, match=f"not supported: {', '.join(sorted(settings.keys() - {'top_k'}))}$"):
        checkpoint.generation()


def test_settings_that_say_what_is_returned_change_no_answer(tmp_path: Path) -> None:
    _, checkpoint = open_checkpoint(bart(tmp_path / "checkpoint"))
    row = Row(np.array([4, 9, 7, 1]), generation=Generation(6, num_beams=3))
    plain = checkpoint.answer(row)
    checkpoint.model.generation_config.num_return_sequences = 2
    checkpoint.model.generation_config.return_dict_in_generate = True
    assert checkpoint.answer(row)["decoded"].tolist() == plain["decoded"].tolist()
    assert checkpoint.generation() is not None


def test_sampling_is_kept_for_requests_that_ask_for_it_and_refused_for_all(tmp_path: Path) -> None:
    _, checkpoint = open_checkpoint(marian(tmp_path / "checkpoint"))
    config = checkpoint.model.generation_config
    for given, kept in (((0.7, 40, 1.0), (0.7, 40, None)), ((0.0, 0, 0.9), (None, None, 0.9))):
        config.temperature, config.top_k, config.top_p = given
        found = checkpoint.generation()
        assert found is not None
        assert (found.temperature, found.top_k, found.top_p) == kept
    config.top_k = -1
    with pytest.raises(ExportError, match="the generation config's top_k is -1: Input should be greater than or equal"):
        checkpoint.generation()
    config.top_k = None
    config.do_sample = True
    with pytest.raises(ExportError, match=r"do_sample: true, .*: where .* set do_sample to false in generation_config"):
        checkpoint.generation()


def test_limits_default_to_the_positions_of_the_checkpoint(tmp_path: Path) -> None:
    for folder, tokens in (
        (marian(tmp_path / "marian"), 64),
        (bert(tmp_path / "bert"), 64),
        (sasrec(tmp_path / "s"), 24),
    ):
        _, checkpoint = open_checkpoint(folder)
        assert checkpoint.limits().max_tokens == tokens


@pytest.mark.parametrize(
    ("settings", "longest"),
    [
        ({}, 300),
        ({"max_length": 290}, 289),
        ({"max_new_tokens": 280}, 280),
        ({"max_new_tokens": 512}, 300),
    ],
)
def test_outputs_are_as_long_as_a_recipe_and_the_generation_config_allow(
    tmp_path: Path, settings: dict[str, int], longest: int
) -> None:
    _, checkpoint = open_checkpoint(marian(tmp_path / "checkpoint", max_position_embeddings=512))
    checkpoint.model.generation_config.update(**{"max_length": None, **settings})
    found = checkpoint.generation(Limits(max_tokens=64, max_new_tokens=300))
    own = checkpoint.generation()
    assert found is not None
    assert own is not None
    assert (found.max_new_tokens, own.max_new_tokens) == (longest, 256)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "cannot be read as TOML"),
        ('name = "a b"', r"field name: String should match pattern"),
        (
            'name = "a"\nsource = "s"\nlicence = "l"\nlanguages = {source = []}\nexample = {}\nmore = 1',
            "field more: Extra",
        ),
    ],
)
def test_a_recipe_that_does_not_validate_names_the_field(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(ExportError, match=rf"recipe\.toml: {message}"):
        read_recipe(path)


def test_the_recipes_of_the_embedded_models_are_valid() -> None:
    found = sorted(Path(__file__).parents[2].glob("models/export/recipes/*.toml"))
    assert len(found) == 4
    assert [read_recipe(path).name for path in found] == [path.stem for path in found]
