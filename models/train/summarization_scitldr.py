"""Fine-tunes the summarizer on SciTLDR, to hold it against published numbers; started from a bundle's weights."""

from pathlib import Path

from models.errors import BundleError
from models.train import data
from models.train.loop import TOKENIZER_FILE, Optimization
from models.train.summarization import Summarization, known_tokenizer

FILES = (data.SCITLDR_TRAIN,)


class Tldr(Summarization):
    """Abstracts of computer science to one sentence each, whole abstracts only."""

    optimization = Optimization(peak_lr=2e-4, warmup=0.1, slow={"model.shared": 0.1, "model.encoder": 0.15})
    short_share = 0.0


def prepare(directory: Path, out: Path) -> Tldr:
    """The recipe for the data in `directory`; the vocabulary is that of the bundle that the training starts from.

    Raises:
        BundleError: no bundle to start from was given, or see `known_tokenizer`.
    """
    vocabulary = out / TOKENIZER_FILE
    if not vocabulary.exists():
        raise BundleError("a training on SciTLDR starts from a summarization bundle, none was given")
    tokenizer, kept = known_tokenizer(vocabulary)
    entries = data.read_scitldr(directory / data.SCITLDR_TRAIN)
    pairs = [data.Pair(entry.source, target) for entry in entries for target in entry.targets]
    return Tldr(pairs, tokenizer, kept)
