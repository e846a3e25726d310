"""`python -m tests.export.tokenizer_table --data DIR`: converted tokenizers beside the originals on real sentences."""

import argparse
import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from transformers import M2M100Tokenizer

from models.export.tokenizer import Comparison, compare, converted_tokenizer, original_tokenizer
from models.train.data import TATOEBA_TRAIN, read_translation
from tests.export import vocabularies
from tests.export.vocabularies import FROM_WORDS, WITH_SENTENCEPIECE, train_sentencepiece

COMPARED = 10_000
TRAINED_ON = 20_000
PIECES = 4_000
REFUSED = "m2m100-bytes"
"""Trained on two languages alone it has no pieces for the letters of its language tokens, which the export refuses."""
COLUMNS = ("tokenizer", "sentences", "other ids", "tied", "other text")


def main() -> None:
    """Print the table in Markdown, a line as soon as it is known."""
    parser = argparse.ArgumentParser(prog="python -m tests.export.tokenizer_table", description=main.__doc__)
    parser.add_argument("--data", type=Path, required=True, help="see models/train/data.py")
    pairs = read_translation(parser.parse_args().data / TATOEBA_TRAIN)
    random.Random(0).shuffle(pairs)
    pairs = pairs[: COMPARED + TRAINED_ON]
    english, french = [pair.source for pair in pairs], [pair.target for pair in pairs]
    print(_line(COLUMNS), _line(["---"] * len(COLUMNS)), sep="\n")
    for name, found in _comparisons(english, french):
        cells = (name, f"{found.texts:,}", *(str(len(each)) for each in (found.encoded, found.tied, found.decoded)))
        print(_line(cells), flush=True)


def _comparisons(english: Sequence[str], french: Sequence[str]) -> Iterator[tuple[str, Comparison]]:
    """Each tokenizer is trained behind the sentences that it is compared on; Marian's are told the language."""
    texts, targets = english[:COMPARED], french[:COMPARED]
    read, written = list(english[COMPARED:]), list(french[COMPARED:])
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        sides = [
            train_sentencepiece(folder / name, lines, vocab_size=PIECES)
            for name, lines in zip("st", (read, written), strict=True)
        ]
        marian = vocabularies.marian(folder / "marian", *sides, codes=(">>fra<<",))
        yield "marian", _compared(marian, [f">>fra<< {text}" for text in texts], targets)
        for name, (save, options) in WITH_SENTENCEPIECE.items():
            if name == REFUSED:
                continue
            model = train_sentencepiece(folder / f"{name}.spm", [*read, *written], **{"vocab_size": PIECES, **options})
            yield name, _compared(save(folder / name, model), texts, targets)
        for name, save in FROM_WORDS.items():
            yield name, _compared(save(folder / name, [*read, *written]), texts, targets)


def _compared(checkpoint: Path, texts: Sequence[str], targets: Sequence[str]) -> Comparison:
    original = original_tokenizer(checkpoint)
    if isinstance(original, M2M100Tokenizer):
        original.tgt_lang = "fr"  # it has no default, and refuses targets without
    return compare(converted_tokenizer(checkpoint), original, texts, targets)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
