"""What a bundle with a shortlist has beside the others: two graphs, and the file made from a parallel text."""

import lzma
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from models.bundle import Languages, Role
from models.export.errors import ExportError
from models.export.graphs import Dims, Source
from models.export.lexicon import Pair, lexicon
from models.export.tokenizer import Converted, original_tokenizer
from models.nets.int8 import Int8Linear
from models.nets.shortlisted import ShortlistedStep, Words
from models.nets.step import DecoderStep
from models.shortlist import Shortlist
from models.tasks.translation import Translation

SHORTLIST_FILE = "shortlist.npz"
FREQUENT = 100
"""Words that every row may write."""
PER_TOKEN = 50
"""Words for each source token; 100 gave no better translations, and more to compute."""
LONGEST = 64
"""Tokens of a sentence that is learned from; longer ones say little of which word belongs to which."""

Encode: TypeAlias = Callable[[str], list[int]]


@dataclass(frozen=True, slots=True)
class Learned:
    """A shortlist, and from how many pairs of sentences."""

    shortlist: Shortlist
    pairs: int


def shortlisted_sources(step: Source) -> Mapping[Role, Source]:
    """From the source of a decoder step, of any precision, to those of the two further graphs.

    Raises:
        ExportError: the step is not a plain one; those that copy score the whole vocabulary.
    """
    if not isinstance(step.module, DecoderStep):
        raise ExportError("a model that copies from its source scores its whole vocabulary: it cannot have a shortlist")
    head: Any = step.module.head
    of_words: dict[str, Dims] = {"head_bias": ("words",), "head_weight": ("words", head.in_features)}
    example = torch.zeros(11, head.in_features)
    given: dict[str, Any] = {"head_weight": example.to(_dtype_of_words(head)), "allowed": torch.zeros(3, 11)}
    inputs: dict[str, Dims] = {"head_weight": of_words["head_weight"], "allowed": ("rows", "words")}
    if isinstance(head, Int8Linear):
        of_words["head_scales"] = inputs["head_scales"] = ("words",)
        given["head_scales"] = torch.zeros(11)
    written: dict[str, Dims] = {**step.outputs, "next": ("rows", 2), "logits": ("rows", "words")}
    ids = {"words": torch.arange(11)}
    return {
        "shortlisted": replace(
            step,
            module=ShortlistedStep(step.module).eval(),
            arguments={**step.arguments, **given},
            inputs={**step.inputs, **inputs},
            outputs=written,
        ),
        "words": Source(Words(head).eval(), ids, {"words": ("words",)}, of_words),
    }


def _dtype_of_words(head: Any) -> torch.dtype:
    dtype: torch.dtype = torch.uint8 if isinstance(head, Int8Linear) else head.weight.dtype
    return dtype


def learn(
    parallel: Path,
    checkpoint: Path,
    task: str,
    converted: Converted | None,
    vocabulary: int | None,
    *,
    languages: Languages,
) -> Learned:
    """Learn a shortlist from a parallel text.

    Args:
        parallel: UTF-8 lines of a source and its translation with a tab between them; `.xz` is unpacked.
        checkpoint: directory, whose own tokenizer cuts translations where it has one for them.
        vocabulary: ids that the model has; they may be more than the tokenizer gives.
        languages: that the bundle reads and writes; the text says nothing of any pair but its own, whose words would
            be all that a translation between others could use.

    Raises:
        ExportError: the task is not translation, there are several pairs of languages, the file cannot be read, or no
            line of it can be learned from.
    """
    if converted is None or vocabulary is None or task != Translation.id:
        raise ExportError(f"a shortlist says which words translate others: a {task} model cannot have one")
    if len(languages.source) > 1 or len(languages.target) != 1:
        raise ExportError(
            f"a shortlist is of one pair of languages, got {len(languages.source)} to read and {len(languages.target)}"
            " to write: give --source-language and --target-language of the parallel text"
        )
    source = partial(_bare, converted)
    target = _target_encoder(checkpoint) or source
    pairs = [
        Pair(of_source, of_target)
        for first, second in read_pairs(parallel)
        if 0 < len(of_source := source(first)) <= LONGEST and 0 < len(of_target := target(second)) <= LONGEST
    ]
    if not pairs:
        raise ExportError(f"{parallel}: no pair of sentences of at most {LONGEST} tokens to learn a shortlist from")
    likely, used = lexicon(pairs, vocabulary, PER_TOKEN)
    counts = np.bincount(np.concatenate([pair.target for pair in pairs]), minlength=vocabulary)
    frequent = np.sort(np.argsort(-counts, kind="stable")[:FREQUENT])
    starts = np.concatenate([[0], np.cumsum([len(words) for words in likely])])
    return Learned(Shortlist(frequent, starts, np.concatenate(likely)), used)


def _bare(converted: Converted, text: str) -> list[int]:
    """Ids without special tokens around them: those stand in every source, and so say nothing of any word."""
    ids = converted.tokenizer.encode(text, add_special_tokens=False).ids
    return [token if token < converted.vocabulary else converted.unknown_token_id for token in ids]


def read_pairs(path: Path) -> Iterator[tuple[str, str]]:
    """Source and translation of each line.

    Raises:
        ExportError: the file cannot be read, or a line does not have the two.
    """
    try:
        with (lzma.open if path.suffix == ".xz" else open)(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                source, tab, target = line.rstrip("\n").partition("\t")
                if not tab:
                    raise ExportError(f"{path}: line {number} has no tab between a source and its translation")
                yield source, target.partition("\t")[0]
    except (OSError, ValueError, lzma.LZMAError) as error:
        raise ExportError(f"{path}: cannot be read as a parallel text: {error}") from error


def _target_encoder(checkpoint: Path) -> Encode | None:
    """Marian cuts its two languages by two models; other tokenizers are the same for both."""
    if not (checkpoint / "target.spm").is_file():
        return None
    tokenizer = original_tokenizer(checkpoint)
    return lambda text: list(tokenizer(text_target=text)["input_ids"])
