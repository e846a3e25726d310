"""Fine-tunes the summarizer on SciTLDR, to hold it against published numbers; started from a bundle's weights."""

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from models.errors import BundleError
from models.train import data
from models.train.loop import TOKENIZER_FILE, Optimization
from models.train.question_answering import encoder_tokenizer
from models.train.summarization import Summarization

FILES = (data.SCITLDR_TRAIN,)


class Tldr(Summarization):
    """Abstracts of computer science to one sentence each, whole abstracts only."""

    optimization = Optimization(peak_lr=2e-4, warmup=0.1, slow={"model.shared": 0.1, "model.encoder": 0.15})
    short_share = 0.0


def prepare(directory: Path, out: Path) -> Tldr:
    """The recipe for the data in `directory`; the vocabulary is that of the bundle that the training starts from.

    Raises:
        BundleError: no bundle to start from was given.
    """
    vocabulary = out / TOKENIZER_FILE
    if not vocabulary.exists():
        raise BundleError("a training on SciTLDR starts from a summarization bundle, none was given")
    tokenizer, encoder = Tokenizer.from_file(str(vocabulary)), encoder_tokenizer()
    pieces = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    kept = [encoder.token_to_id(piece) for piece, _ in pieces]
    entries = data.read_scitldr(directory / data.SCITLDR_TRAIN)
    pairs = [data.Pair(entry.source, target) for entry in entries for target in entry.targets]
    return Tldr(pairs, tokenizer, np.array(kept, dtype=np.int64))
