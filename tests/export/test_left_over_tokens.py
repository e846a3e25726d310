"""A tokenizer with more tokens than its model: BART's summarizers have no row for `<mask>`, which is then unknown."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import models, pre_tokenizers
from transformers import BartConfig, BartForConditionalGeneration, RobertaConfig, RobertaForQuestionAnswering

from models.bundle import OutOfVocabulary
from models.export.errors import ExportError
from models.export.tokenizer import converted_tokenizer
from models.export.write import export
from models.load import load
from models.offline import answer_all
from tests.export.checkpoints import SIZES, recipe
from tests.export.vocabularies import FROM_WORDS, english

IDS: Mapping[str, Any] = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
UNKNOWN = 3
TEXTS = ("a <mask> b", "a <unk> b")


def masked_last(folder: Path, family: str = "bart") -> int:
    """BART's or RoBERTa's tokenizer as those of the hub are, `<mask>` behind all others; how many tokens it has."""
    FROM_WORDS[family](folder, english(200))
    ids = json.loads((folder / "vocab.json").read_text())
    kept = [token for token in sorted(ids, key=ids.__getitem__) if token != "<mask>"]
    (folder / "vocab.json").write_text(json.dumps({token: place for place, token in enumerate(kept)}))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    kind: Any = transformers.BartTokenizer
    tokenizer = kind.from_pretrained(folder)
    tokenizer.save_pretrained(folder)
    assert tokenizer.mask_token_id == len(kept) == len(tokenizer) - 1
    return len(tokenizer)


@pytest.mark.parametrize("text", TEXTS)
def test_a_summarizer_without_a_row_for_the_mask_reads_it_as_unknown(tmp_path: Path, text: str) -> None:
    torch.manual_seed(2)
    tokens = masked_last(tmp_path / "checkpoint")
    sizes = {**SIZES, **IDS, "vocab_size": tokens - 1, "decoder_start_token_id": 2, "activation_function": "gelu"}
    BartForConditionalGeneration(BartConfig(**sizes)).save_pretrained(tmp_path / "checkpoint")
    asked = recipe("summarization", example={"inputs": text}, references=[{"inputs": each} for each in TEXTS])
    bundle, _ = export(tmp_path / "checkpoint", "summarization", tmp_path / "bundle", asked, precisions=("fp32",))
    assert bundle.manifest.out_of_vocabulary == OutOfVocabulary(first_id=tokens - 1, unknown_token_id=UNKNOWN)
    loaded = load(bundle.folder)
    requests = [loaded.task.request_type.model_validate({"inputs": each}) for each in TEXTS]
    (of_mask,), (of_unknown,) = answer_all(loaded, requests)
    assert of_mask == of_unknown


def test_a_question_answerer_without_a_row_for_the_mask_reads_it_as_unknown(tmp_path: Path) -> None:
    """In question and context, and where a word is left out to explain the answer."""
    torch.manual_seed(2)
    tokens = masked_last(tmp_path / "checkpoint", "roberta")
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 48,
    }
    config = RobertaConfig(**sizes, **IDS, vocab_size=tokens - 1, max_position_embeddings=64)
    RobertaForQuestionAnswering(config).save_pretrained(tmp_path / "checkpoint")
    request: dict[str, Any] = {"inputs": {"question": "which <mask> one", "context": f"the rows {TEXTS[0]} answer"}}
    asked = recipe("question-answering", example=request)
    bundle, _ = export(tmp_path / "checkpoint", "question-answering", tmp_path / "bundle", asked, precisions=("fp32",))
    loaded = load(bundle.folder)
    request |= {"explain": {"method": "occlusion"}}
    (answer,) = answer_all(loaded, [loaded.task.request_type.model_validate(request)])
    assert answer.explanation.parts


def test_pieces_that_the_model_lacks_are_refused(tmp_path: Path) -> None:
    tokens = masked_last(tmp_path / "checkpoint")
    assert converted_tokenizer(tmp_path / "checkpoint", tokens - 1).vocabulary == tokens - 1
    with pytest.raises(ExportError, match=f"it has {tokens} tokens, the model {tokens - 2}"):
        converted_tokenizer(tmp_path / "checkpoint", tokens - 2)


def test_a_tokenizer_of_no_transformers_class_may_have_special_tokens_left_over_too(tmp_path: Path) -> None:
    written = RustTokenizer(models.WordLevel({"rows": 0, "<unk>": 1, "more": 2}, "<unk>"))
    written.pre_tokenizer = pre_tokenizers.Whitespace()
    written.add_special_tokens(["<mask>"])
    written.save(str(tmp_path / "tokenizer.json"))
    assert converted_tokenizer(tmp_path, 3).encode("rows <mask>") == [0, 1]
    with pytest.raises(ExportError, match=r"tokenizer\.json: it has 4 tokens, the model 2"):
        converted_tokenizer(tmp_path, 2)
    with pytest.raises(ExportError, match="it has 4 tokens, the model 1"):
        converted_tokenizer(tmp_path, 1)
