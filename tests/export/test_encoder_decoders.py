"""mBART, Pegasus, M2M100 and the T5s through the exporter: exact in float32 up to their limits, near in int8."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.bundle import Languages
from models.export.checkpoint import open_checkpoint
from models.export.errors import ExportError
from models.export.parity import FP32_TOLERANCE, answers, compare, random_rows, require_parity
from models.export.recipe import Decoding
from models.export.reference import load_reference
from models.export.replay import replay
from models.export.tokenizer import original_tokenizer
from models.export.write import export
from models.task import Generation, Row
from tests.export.checkpoints import TEXT, recipe
from tests.export.encoder_decoders import ENCODER_DECODERS, OPUS_LANGUAGES, T5_TASKS, m2m_100, t5
from tests.export.exported import Exported

pytestmark = pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "opus": {"num_beams": 2, "no_repeat_ngram_size": 2},
    "mbart": {"no_repeat_ngram_size": 2},
    "pointer-bart": {"no_repeat_ngram_size": 3},
    "pegasus": {"no_repeat_ngram_size": 3},
    "m2m_100": {"no_repeat_ngram_size": 2},
    "t5": T5_TASKS["translation_en_to_fr"],
    "flan": T5_TASKS["translation_en_to_fr"],
}
"""What a family's manifest says of generation, beside token ids."""


@pytest.fixture(params=ENCODER_DECODERS)
def exported(request: pytest.FixtureRequest, exports: Callable[[str], Exported]) -> Exported:
    """One family, in what it is tested in."""
    return exports(request.param)


def test_graphs_are_exact_in_float32_and_near_in_int8(exported: Exported) -> None:
    """Random weights quantize worst of all, and layers weigh more here than training lets them: 0.02 to 0.04."""
    fp32, int8 = exported.parities["fp32"], exported.parities.get("int8")
    assert fp32.largest_difference <= FP32_TOLERANCE
    assert (fp32.agreement, fp32.greedy, fp32.beams) == (1.0, 1.0, 1.0)
    assert int8 is None or 0 < int8.relative_error < 0.1
    told = {name: "next" in each.graphs["step"].outputs for name, each in exported.bundle.manifest.precisions.items()}
    assert told == {name: name != "int8" for name in told}


@pytest.mark.parametrize("exported", ["mbart", "pegasus", "m2m_100", "pointer-bart", "t5"], indirect=True)
def test_sources_and_outputs_up_to_the_limits_are_exact(exported: Exported) -> None:
    """Every position of a table, and for T5 distances in every bucket, in the decoder of one also beyond the last."""
    manifest = exported.bundle.manifest
    assert manifest.generation is not None
    checkpoint = exported.original
    checkpoint.specialise(manifest.task, manifest.languages)
    rng = np.random.default_rng(5)
    generation = Generation(
        max_new_tokens=manifest.limits.max_new_tokens,
        no_repeat_ngram_size=manifest.generation.no_repeat_ngram_size,
    )
    rows = [
        Row(rng.integers(2, checkpoint.vocabulary, length), generation=generation)
        for length in (manifest.limits.max_tokens, 33, 2)
    ]
    expected = answers(checkpoint, rows)
    assert max(len(answer["decoded"]) for answer in expected) == manifest.limits.max_new_tokens
    assert len({token for answer in expected for token in answer["decoded"].tolist()}) >= 8
    require_parity(compare(exported.bundle, "fp32", rows, expected))


@pytest.mark.parametrize("exported", ["m2m_100"], indirect=True)
def test_padding_that_a_caller_wrote_takes_no_position(exported: Exported) -> None:
    checkpoint = exported.original
    padding = checkpoint.model.config.pad_token_id
    source = np.random.default_rng(6).integers(5, checkpoint.vocabulary, 12)
    source[[3, 4, 9]] = padding
    rows = [Row(tokens, generation=Generation(8, no_repeat_ngram_size=2)) for tokens in (source, source[3:])]
    require_parity(compare(exported.bundle, "fp32", rows, answers(checkpoint, rows)))


@pytest.mark.parametrize("exported", ["pointer-bart", "flan"], indirect=True)
def test_int8_graphs_give_a_row_the_same_bits_alone_and_in_a_crowd(exported: Exported) -> None:
    checkpoint = exported.original
    rows = random_rows(checkpoint.vocabulary, exported.bundle.manifest)[:6]
    targets = [answer["target"] for answer in answers(checkpoint, rows)]
    together = replay(exported.bundle, "int8", rows, targets)
    for row, target, crowd in zip(rows, targets, together, strict=True):
        (alone,) = replay(exported.bundle, "int8", [row], [target])
        assert np.array_equal(alone["logits"], crowd["logits"])


def test_tied_weights_are_stored_once(exported: Exported) -> None:
    """Beside the parameters stand tables of positions and of distances, far smaller than a vocabulary that counts."""
    manifest = exported.bundle.manifest
    checkpoint = exported.original
    tensors = [*checkpoint.model.parameters(), *checkpoint.model.buffers()]
    for source in checkpoint.sources(manifest.limits).values():
        tensors.extend(source.module.buffers())
        tensors.extend(part.weight for part in source.module.modules() if isinstance(part, torch.nn.Embedding))
    distinct = {tensor.detach().numpy().tobytes() for tensor in tensors}
    weights = manifest.precisions["fp32"].weights
    assert weights is not None
    assert weights.bytes <= sum(len(content) + 64 for content in distinct)


def test_the_manifest_says_how_the_family_generates(exported: Exported) -> None:
    generation = exported.bundle.manifest.generation
    assert generation is not None
    original = exported.original.model.generation_config
    said = generation.model_dump(exclude_defaults=True, exclude={"max_new_tokens"})
    expected = {**SETTINGS.get(exported.family, {}), "eos_token_id": original.eos_token_id}
    expected["decoder_start_token_id"] = original.decoder_start_token_id
    if exported.family == "mbart":
        expected["forced_bos_token_id"] = original.forced_bos_token_id
    if exported.family in {"opus", "m2m_100"}:
        expected["suppressed_token_ids"] = (original.pad_token_id,)
    assert said == expected


def test_a_model_of_many_languages_says_them_all(exports: Callable[[str], Exported]) -> None:
    opus, mbart, m2m = (exports(family).bundle.manifest for family in ("opus", "mbart", "m2m_100"))
    assert opus.languages == Languages(source=("en",), target=OPUS_LANGUAGES)
    assert len(mbart.languages.source) == len(mbart.languages.target) == 52
    assert len(m2m.languages.source) == len(m2m.languages.target) == 100
    assert opus.language_tokens is not None
    assert mbart.language_tokens is not None
    assert m2m.language_tokens is not None
    assert opus.language_tokens.default_target is None
    assert (mbart.language_tokens.default_source, mbart.language_tokens.default_target) == ("en_XX", "fr_XX")
    assert (m2m.language_tokens.default_source, m2m.language_tokens.default_target) == ("en", None)
    assert m2m.example["parameters"] == {"tgt_lang": "af"}


@pytest.mark.parametrize("exported", ["t5"], indirect=True)
def test_a_prefix_stands_before_the_text_of_every_row(exported: Exported) -> None:
    rows, _ = load_reference(exported.reference)
    original = original_tokenizer(exported.checkpoint)
    assert rows[0].tokens.tolist() == original(f"translate English to French: {TEXT}")["input_ids"]


def test_settings_of_a_task_are_those_of_its_languages(tmp_path: Path) -> None:
    tasks = {"translation_en_to_fr": {"prefix": "translate English to French: ", "repetition_penalty": 1.2}}
    _, checkpoint = open_checkpoint(t5(tmp_path / "checkpoint", task_specific_params=tasks))
    checkpoint.specialise("translation", Languages(source=("en",), target=("de",)))
    other = checkpoint.generation()
    checkpoint.specialise("translation", Languages(source=("en",), target=("fr",)))
    own = checkpoint.generation()
    assert other is not None
    assert own is not None
    assert (other.prefix, other.repetition_penalty) == ("", 1.0)
    assert (own.prefix, own.repetition_penalty) == ("translate English to French: ", 1.2)


def test_a_prefix_at_the_top_of_the_configuration_stands_before_sources_of_any_task(tmp_path: Path) -> None:
    tasks = {"translation_en_to_fr": {"prefix": "to French: "}, "translation_en_to_de": {"num_beams": 2}}
    _, checkpoint = open_checkpoint(t5(tmp_path / "checkpoint", task_specific_params=tasks, prefix="ask: "))
    prefixes = {}
    for target in ("fr", "de", "it"):
        checkpoint.specialise("translation", Languages(source=("en",), target=(target,)))
        generation = checkpoint.generation()
        prefixes[target] = generation and generation.prefix
    assert prefixes == {"fr": "to French: ", "de": "ask: ", "it": "ask: "}


class Reading(Exception):
    """The checkpoint is being read, so that nothing was found in what stands beside it."""


def report(step: str) -> None:
    if step.startswith("reading"):
        raise Reading


@pytest.mark.parametrize(
    ("languages", "changes", "refusal"),
    [
        (Languages(source=("en",), target=("it",)), {}, "settings for en to de, en to fr, not for en to it: give one"),
        (Languages(source=("en", "de"), target=("fr",)), {}, "not for en_de to fr: give one"),
        (Languages(source=("en",), target=("it",)), {"generation": Decoding(prefix="Say it in Italian: ")}, None),
        (Languages(source=("en",), target=("de",)), {}, None),
    ],
)
def test_a_pair_of_languages_without_a_prefix_is_refused(
    tmp_path: Path, languages: Languages, changes: Mapping[str, Any], refusal: str | None
) -> None:
    folder, asked = t5(tmp_path / "t5"), recipe("translation", languages=languages, **changes)
    with pytest.raises(ExportError if refusal else Reading, match=refusal):
        export(folder, "translation", tmp_path / "bundle", asked, report=report)


def test_limits_default_to_the_positions_of_the_checkpoint_or_to_what_t5_was_trained_on(tmp_path: Path) -> None:
    for folder, tokens in ((m2m_100(tmp_path / "m2m_100"), 64), (t5(tmp_path / "t5"), 512)):
        _, checkpoint = open_checkpoint(folder)
        assert checkpoint.limits().max_tokens == tokens
