"""The graph of attention against what transformers gives as `output_attentions`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from models.bundle import File, Graph, Limits, Role  # noqa: E402
from models.export.checkpoint import Checkpoint, open_checkpoint  # noqa: E402
from models.export.explain import explain_source  # noqa: E402
from models.export.graphs import save, trace  # noqa: E402
from models.export.write import export  # noqa: E402
from models.load import Loaded, load  # noqa: E402
from models.offline import answer_all, compute  # noqa: E402
from models.packing import pack  # noqa: E402
from models.scoring import Scorer  # noqa: E402
from models.session import open_graph, open_session  # noqa: E402
from models.task import Row  # noqa: E402
from tests.export import encoders  # noqa: E402
from tests.export.checkpoints import bart, bert, marian, recipe, sasrec  # noqa: E402
from tests.export.encoder_decoders import pointer_bart, t5  # noqa: E402
from tests.export.exported import Exported  # noqa: E402

TOLERANCE = 1e-3
SOURCE, TARGET = np.array([5, 9, 4, 7, 11, 3, 8, 10, 1]), np.array([0, 6, 12, 4, 9, 13])


def explained(checkpoint: Checkpoint, folder: Path, row: Row) -> dict[str, Any]:
    """What the float32 graph gives."""
    source = explain_source(checkpoint.sources(Limits(max_tokens=24, max_new_tokens=16)))
    assert source is not None
    role: Role = "explain"
    save({role: trace(source)}, folder)
    signature = Graph(
        file=File(path="explain.onnx", sha256="0" * 64, bytes=0),
        inputs=tuple(source.inputs),
        outputs=tuple(source.outputs),
    )
    session = open_graph(folder / "explain.onnx", signature)
    feeds = pack([row]).feeds([name for name in source.inputs if name != "target"])
    return session.run(feeds | ({"target": TARGET} if "target" in source.inputs else {}))


def compare_with_output_attentions(model: Any, found: dict[str, Any]) -> None:
    model.set_attn_implementation("eager")
    given = {"input_ids": torch.from_numpy(SOURCE)[None], "decoder_input_ids": torch.from_numpy(TARGET)[None]}
    with torch.no_grad():
        wanted = getattr(model, "model", model)(**given, output_attentions=True)
    own = found["encoder_attention"][..., : len(SOURCE), : len(SOURCE)]
    for ours, theirs in ((found["cross_attention"], wanted.cross_attentions), (own, wanted.encoder_attentions)):
        expected = torch.cat(list(theirs)).numpy()
        assert ours.shape == expected.shape
        assert np.abs(ours - expected).max() <= TOLERANCE
        assert np.ptp(expected, axis=-1).max() > 100 * TOLERANCE, "even weights would prove nothing"


@pytest.mark.parametrize("write", [marian, t5])
def test_attention_of_encoder_decoders(write: Callable[[Path], Path], tmp_path: Path) -> None:
    _, checkpoint = open_checkpoint(write(tmp_path / "checkpoint"))
    compare_with_output_attentions(checkpoint.model, explained(checkpoint, tmp_path, Row(SOURCE)))


def test_a_pointers_copies_are_those_of_its_logits(tmp_path: Path) -> None:
    _, checkpoint = open_checkpoint(pointer_bart(tmp_path / "checkpoint"))
    found, model = explained(checkpoint, tmp_path, Row(SOURCE)), checkpoint.model
    given = {"input_ids": torch.from_numpy(SOURCE)[None], "decoder_input_ids": torch.from_numpy(TARGET)[None]}
    with torch.no_grad():
        mixed = model(**given).logits[0].exp().numpy()
        hidden = model.model(**given).last_hidden_state
        written = torch.softmax(model.lm_head(hidden) + model.final_logits_bias, -1)[0].numpy()
    share = found["copy_share"]
    again = written * (1 - share[:, None])
    for place, token in enumerate(SOURCE):
        again[:, token] += share * found["copy_attention"][:, place]
    assert np.abs(again - mixed).max() <= TOLERANCE
    compare_with_output_attentions(model, found)


def test_attention_of_a_span_scorer(tmp_path: Path) -> None:
    _, checkpoint = open_checkpoint(bert(tmp_path / "checkpoint"))
    segments = np.repeat([0, 1], [4, 5])
    found = explained(checkpoint, tmp_path, Row(SOURCE, segments))
    checkpoint.model.set_attn_implementation("eager")
    with torch.no_grad():
        wanted = checkpoint.model(
            input_ids=torch.from_numpy(SOURCE)[None],
            token_type_ids=torch.from_numpy(segments)[None],
            output_attentions=True,
        ).attentions
    ours = found["encoder_attention"][..., : len(SOURCE), : len(SOURCE)]
    assert np.abs(ours - torch.cat(list(wanted)).numpy()).max() <= TOLERANCE


def test_attention_of_a_next_item_scorer_looks_back_alone(tmp_path: Path) -> None:
    _, checkpoint = open_checkpoint(sasrec(tmp_path / "checkpoint"))
    ours = explained(checkpoint, tmp_path, Row(SOURCE))["encoder_attention"][..., : len(SOURCE), : len(SOURCE)]
    model, layer = checkpoint.model, checkpoint.model.layers[0]
    with torch.no_grad():
        hidden = model.items(torch.from_numpy(SOURCE)) + model.positions.weight[: len(SOURCE)]
        query, key, _ = layer.query_key_value(layer.attention_norm(hidden)).view(len(SOURCE), 3, 2, 16).unbind(1)
        scores = torch.einsum("qhd,khd->hqk", query, key) / 4
        wanted = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf).softmax(-1)
    assert np.abs(ours[0] - wanted.numpy()).max() <= TOLERANCE
    assert np.abs(np.triu(ours, 1)).max() == 0


def test_scores_are_the_log_probabilities_of_transformers(exports: Callable[[str], Exported]) -> None:
    exported = exports("marian")
    generation = exported.bundle.manifest.generation
    assert generation is not None
    encoder, step = (open_session(exported.bundle, "fp32", "encoder"), open_session(exported.bundle, "fp32", "step"))
    scorer = Scorer(encoder, lambda: step, generation)
    targets = [TARGET[1:], TARGET[1:3], TARGET[2:]]
    sources = [SOURCE, SOURCE[3:], np.delete(SOURCE, 2)]
    rows = [Row(source, purpose="score", target=target) for source, target in zip(sources, targets, strict=True)]
    for found, row in zip(compute(scorer, rows), rows, strict=True):
        assert row.target is not None
        read = np.concatenate([[generation.decoder_start_token_id], row.target[:-1]])
        with torch.no_grad():
            logits = exported.original.model(
                input_ids=torch.from_numpy(row.tokens)[None], decoder_input_ids=torch.from_numpy(read)[None]
            ).logits[0]
        wanted = logits.log_softmax(-1)[range(len(row.target)), row.target].numpy()
        assert np.abs(found.arrays["log_probabilities"] - wanted).max() <= TOLERANCE


def test_an_export_carries_the_graph_beside_unchanged_weights(
    exports: Callable[[str], Exported], tmp_path: Path
) -> None:
    asked = recipe("question-answering", explain=True)
    bundle, _ = export(bert(tmp_path / "checkpoint"), "question-answering", tmp_path / "bundle", asked)
    graphs, without = bundle.graphs("int8"), exports("bert").bundle.graphs("int8")
    assert set(graphs.graphs) == {"forward", "explain"}
    assert graphs.weights == without.weights
    loaded = load(bundle.folder)
    request: dict[str, Any] = {**bundle.manifest.example, "explain": {"method": ["attention", "occlusion"]}}
    (answer,) = answer_all(loaded, [loaded.task.request_type.model_validate(request)])
    (part,) = answer.explanation.parts
    assert part.attention.weights.shape == [len(part.output), len(part.source)]


@pytest.mark.parametrize("num_beams", [1, 3])
def test_an_answer_that_is_nothing_but_its_forced_end_is_explained(bart_that_explains: Loaded, num_beams: int) -> None:
    request: dict[str, Any] = {
        "inputs": "the cat sat",
        "parameters": {"generate_parameters": {"max_new_tokens": 1, "num_beams": num_beams}},
        "explain": {"method": ["attention", "occlusion"]},
    }
    loaded = bart_that_explains
    ((answer,),) = answer_all(loaded, [loaded.task.request_type.model_validate(request)])
    (part,) = answer.explanation.parts
    assert [unit.text for unit in part.output] == ["</s>"]
    assert part.attention.weights.shape == [1, len(part.source)]
    assert part.occlusion.weights.shape == [1, 3]


@pytest.fixture(scope="module")
def bart_that_explains(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = tmp_path_factory.mktemp("bart")
    asked = recipe("summarization", explain=True)
    bundle, _ = export(bart(folder / "checkpoint"), "summarization", folder / "bundle", asked, precisions=("fp32",))
    return load(bundle.folder)


def test_a_padded_graph_has_none(tmp_path: Path) -> None:
    _, checkpoint = open_checkpoint(encoders.checkpoint(tmp_path / "checkpoint", next(iter(encoders.PADDED))))
    assert explain_source(checkpoint.sources(Limits(max_tokens=24))) is None
