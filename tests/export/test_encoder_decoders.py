"""mBART, Pegasus, M2M100 and the T5s through the exporter: exact in float32 up to their limits, near in int8."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from models.bundle import Bundle, Languages, Precision
from models.export.checkpoint import open_checkpoint
from models.export.errors import ExportError
from models.export.parity import FP32_TOLERANCE, Parity, answers, compare, random_rows, require_parity
from models.export.reference import load_reference
from models.export.replay import replay
from models.export.write import export
from models.task import Generation, Row
from tests.export.checkpoints import TEXT, recipe, sasrec
from tests.export.encoder_decoders import ENCODER_DECODERS, T5_TASKS, m2m_100, t5

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "mbart": {"forced_bos_token_id": 7, "no_repeat_ngram_size": 2},
    "pointer-bart": {"no_repeat_ngram_size": 3},
    "pegasus": {"no_repeat_ngram_size": 3},
    "m2m_100": {
        "decoder_start_token_id": 1,
        "forced_bos_token_id": 12,
        "suppressed_token_ids": (0,),
        "no_repeat_ngram_size": 2,
    },
    "t5": T5_TASKS["summarization"],
}
"""What a family's manifest says of generation, beside what all say."""


@dataclass(frozen=True)
class Exported:
    family: str
    checkpoint: Path
    bundle: Bundle
    parities: Mapping[Precision, Parity]
    reference: Path


@pytest.fixture(scope="session", params=ENCODER_DECODERS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Both precisions of one family."""
    folder = tmp_path_factory.mktemp(request.param)
    task, limits, make = ENCODER_DECODERS[request.param]
    checkpoint, reference = make(folder / "checkpoint"), folder / "reference.npz"
    first_token = "another" if request.param == "m2m_100" else None
    bundle, parities = export(
        checkpoint,
        task,
        folder / "bundle",
        recipe(task, limits=limits, first_token=first_token),
        precisions=("fp32", "int8"),
        reference=reference,
    )
    return Exported(request.param, checkpoint, bundle, {parity.precision: parity for parity in parities}, reference)


def test_graphs_are_exact_in_float32_and_near_in_int8(exported: Exported) -> None:
    """Random weights quantize worst of all, and layers weigh more here than training lets them: 0.02 to 0.04."""
    fp32, int8 = exported.parities["fp32"], exported.parities["int8"]
    assert fp32.largest_difference <= FP32_TOLERANCE
    assert (fp32.agreement, fp32.decoded) == (1.0, 1.0)
    assert 0 < int8.relative_error < 0.1


def test_sources_and_outputs_up_to_the_limits_are_exact(exported: Exported) -> None:
    """Every position of a table, and for T5 distances in every bucket, in the decoder of one also beyond the last."""
    manifest = exported.bundle.manifest
    assert manifest.generation is not None
    _, checkpoint = open_checkpoint(exported.checkpoint)
    checkpoint.specialise(manifest.task, manifest.languages, manifest.generation.forced_bos_token_id)
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


def test_int8_graphs_give_a_row_the_same_bits_alone_and_in_a_crowd(exported: Exported) -> None:
    _, checkpoint = open_checkpoint(exported.checkpoint)
    rows = random_rows(checkpoint.vocabulary, exported.bundle.manifest)[:6]
    targets = [answer["target"] for answer in answers(checkpoint, rows)]
    together = replay(exported.bundle, "int8", rows, targets)
    for row, target, crowd in zip(rows, targets, together, strict=True):
        (alone,) = replay(exported.bundle, "int8", [row], [target])
        assert np.array_equal(alone["logits"], crowd["logits"])


def test_tied_weights_are_stored_once(exported: Exported) -> None:
    """Beside the parameters stand tables of positions and of distances, far smaller than a vocabulary that counts."""
    manifest = exported.bundle.manifest
    _, checkpoint = open_checkpoint(exported.checkpoint)
    tensors = [*checkpoint.model.parameters(), *checkpoint.model.buffers()]
    for source in checkpoint.sources(manifest.limits).values():
        tensors.extend(source.module.buffers())
    distinct = {tensor.detach().numpy().tobytes() for tensor in tensors}
    weights = manifest.precisions["fp32"].weights
    assert weights is not None
    assert weights.bytes <= sum(len(content) + 64 for content in distinct)


def test_the_manifest_says_how_the_family_generates(exported: Exported) -> None:
    generation = exported.bundle.manifest.generation
    assert generation is not None
    shared = {"decoder_start_token_id": 0, "eos_token_id": 1}
    said = generation.model_dump(exclude_defaults=True, exclude={"max_new_tokens"})
    assert said == {**shared, **SETTINGS.get(exported.family, {})}


@pytest.mark.parametrize("exported", ["t5"], indirect=True)
def test_a_prefix_stands_before_the_text_of_every_row(exported: Exported) -> None:
    rows, _ = load_reference(exported.reference)
    tokenizer = Tokenizer.from_file(str(exported.bundle.folder / "tokenizer.json"))
    assert rows[0].tokens.tolist() == tokenizer.encode(f"saw on : {TEXT}").ids


def test_settings_of_a_task_are_those_of_its_languages(tmp_path: Path) -> None:
    tasks = {"translation_en_to_fr": {"prefix": "translate English to French: ", "repetition_penalty": 1.2}}
    _, checkpoint = open_checkpoint(t5(tmp_path / "checkpoint", task_specific_params=tasks))
    checkpoint.specialise("translation", Languages(source=("en",), target=("de",)), None)
    other = checkpoint.generation()
    checkpoint.specialise("translation", Languages(source=("en",), target=("fr",)), None)
    own = checkpoint.generation()
    assert other is not None
    assert own is not None
    assert (other.prefix, other.repetition_penalty) == ("", 1.0)
    assert (own.prefix, own.repetition_penalty) == ("translate English to French: ", 1.2)


def test_limits_default_to_the_positions_of_the_checkpoint_or_to_what_t5_was_trained_on(tmp_path: Path) -> None:
    for folder, tokens in ((m2m_100(tmp_path / "m2m_100"), 64), (t5(tmp_path / "t5"), 512)):
        _, checkpoint = open_checkpoint(folder)
        assert checkpoint.limits().max_tokens == tokens


def test_a_first_token_that_the_tokenizer_does_not_have_is_refused(tmp_path: Path) -> None:
    asked = recipe("recommendation", first_token="fra_Latn")
    with pytest.raises(ExportError, match="field first_token: 'fra_Latn' is no token of"):
        export(sasrec(tmp_path / "checkpoint"), "recommendation", tmp_path / "bundle", asked)
