"""What reading a text costs: its sentences are tokenized once, though first counted."""

from collections import Counter
from pathlib import Path

import pytest

from models.task import Tokens
from models.tasks.translation import Translation, TranslationRequest
from models.text import Tokenizer
from tests.models.tasks.bundles import bundle_of


def test_each_sentence_is_tokenized_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: Counter[str] = Counter()
    encode = Tokenizer.encode

    def noting(tokenizer: Tokenizer, text: str) -> Tokens:
        read[text] += 1
        return encode(tokenizer, text)

    task = Translation(bundle_of("translation", tmp_path, max_tokens=12))
    monkeypatch.setattr(Tokenizer, "encode", noting)
    draft = task.draft(TranslationRequest(inputs=["The fox jumps. The dog knows why.", "The fox jumps."]))
    assert read == {"The fox jumps.": 1, "The dog knows why.": 1}
    assert [row.tokens.tolist() for row in draft.rows] == [
        encode(task._tokenizer, text).tolist() for text in ("The fox jumps.", "The dog knows why.", "The fox jumps.")
    ]
