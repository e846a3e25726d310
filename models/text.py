"""Text to token ids and back: the tokenizer, stretches and windows of what is too long."""

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from tokenizers import Encoding
from tokenizers import Tokenizer as RustTokenizer

from models.bundle import OutOfVocabulary, SourceTokens
from models.errors import BundleError
from models.task import Tokens

Truncation: TypeAlias = Literal["do_not_truncate", "longest_first", "only_first"]
"""Of the strategies that Hugging Face names, those that make sense for a single text."""

_BEFORE_PUNCTUATION = re.compile(r" +(?=[.,!?])| (?=(?:n't|'m|'s|'ve|'re)\b)")


@dataclass(frozen=True, slots=True)
class Window:
    """A question with one stretch of its context.

    Args:
        tokens: int64 [length], special tokens included.
        segments: int64 [length], 1 on the second text.
        context: positions of the tokens that belong to the context, contiguous.
        spans: character offsets [start, end) into the whole context, one for each token in `context`.
        words: for each token in `context`, the offsets of the whole word that it is part of.
        question: positions of the question's tokens, contiguous.
        question_spans: character offsets [start, end) into the question, one for each of these.
    """

    tokens: Tokens
    segments: Tokens
    context: slice
    spans: tuple[tuple[int, int], ...]
    words: tuple[tuple[int, int], ...]
    question: slice
    question_spans: tuple[tuple[int, int], ...]


class Tokenizer:
    """A bundle's `tokenizer.json`.

    Args:
        prefix: stands before every text that is encoded alone; its tokens count among the special ones.
        out_of_vocabulary: ids of the file that the model does not have.

    Raises:
        BundleError: the file is not a tokenizer.
    """

    def __init__(self, path: Path, *, prefix: str = "", out_of_vocabulary: OutOfVocabulary | None = None) -> None:
        try:
            self._tokenizer = RustTokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise BundleError(f"{path}: not a tokenizer: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._prefix = prefix
        self._out_of_vocabulary = out_of_vocabulary
        self._first: tuple[int, ...] = ()
        self._around: SourceTokens | None = None

    def with_specials(self, first: Sequence[int], around: SourceTokens | None) -> "Tokenizer":
        """The same tokenizer for texts that are encoded alone with other special tokens.

        Args:
            first: ids that come before everything else.
            around: stand in place of the tokenizer's own special tokens; None keeps those.
        """
        changed = copy(self)
        changed._first, changed._around = tuple(first), around  # noqa: SLF001 - of the same class
        return changed

    @property
    def lower_cases(self) -> bool:
        """Whether the model reads and writes lower case alone."""
        normalizer = self._tokenizer.normalizer
        return normalizer is not None and normalizer.normalize_str("A") == "a"

    def encode(self, text: str) -> Tokens:
        """Ids int64 [length] of the text with the prefix and special tokens that the model expects around it."""
        around = self._around or SourceTokens()
        found = self._tokenizer.encode(self._prefix + text, add_special_tokens=self._around is None).ids
        return self._known([*self._first, *around.before, *found, *around.after])

    def _known(self, ids: Sequence[int]) -> Tokens:
        """The ids as the model has them."""
        known = np.array(ids, np.int64)
        if (lacking := self._out_of_vocabulary) is not None:
            known[known >= lacking.first_id] = lacking.unknown_token_id
        return known

    def spans(self, text: str) -> list[tuple[int, int] | None]:
        """For each id of `encode` the characters [start, end) that it stands for, without blanks around them.

        None for special tokens and those of the prefix.
        """
        around, begin = self._around or SourceTokens(), len(self._prefix)
        found = self._tokenizer.encode(self._prefix + text, add_special_tokens=self._around is None)
        within = [
            None if special or end <= begin else _trimmed(text, max(start - begin, 0), end - begin)
            for (start, end), special in zip(found.offsets, found.special_tokens_mask, strict=True)
        ]
        return [*[None] * (len(self._first) + len(around.before)), *within, *[None] * len(around.after)]

    def piece(self, token: int) -> str:
        """How the vocabulary writes an id."""
        return self._tokenizer.id_to_token(token) or ""

    @property
    def mask_token_id(self) -> int | None:
        """What stands for a word that is not to be read; None where the vocabulary has no such token."""
        known = (self._tokenizer.token_to_id(token) for token in ("[MASK]", "<mask>", "[UNK]", "<unk>"))
        return next((int(self._known([token])[0]) for token in known if token is not None), None)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids, special tokens left out."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def count(self, text: str) -> int:
        """How many tokens `encode` gives."""
        return len(self.encode(text))

    def split(self, text: str, max_tokens: int) -> list[str]:
        """Cut a text into stretches of at most `max_tokens` tokens, special ones included, at blanks where it has any.

        The stretches joined give the text again.
        """
        room = max_tokens - self.single_specials
        starts = [start for start, _ in self._tokenizer.encode(text, add_special_tokens=False).offsets]
        stretches, begin = [], 0
        while (token := bisect_left(starts, begin) + room) < len(starts):
            end = self._cut(text, begin, max(starts[token], begin + 1), room)
            stretches.append(text[begin:end])
            begin = end
        rest = text[begin:]
        if self.count_bare(rest) > room:  # a cut text tokenizes anew and may come out a token longer than it was
            end = self._cut(text, begin, len(text) - 1, room)
            return [*stretches, text[begin:end], *self.split(text[end:], max_tokens)]
        return [*stretches, rest] if rest else stretches

    def _cut(self, text: str, begin: int, limit: int, room: int) -> int:
        """The last good place at or before `limit` to end a stretch that starts at `begin` and must fit the room."""
        blank = max(text.rfind(" ", begin + 1, limit), text.rfind("\n", begin + 1, limit))
        end = blank + 1 if blank > 0 else limit
        while end > begin + 1 and self.count_bare(text[begin:end]) > room:
            end -= max(1, (end - begin) // 16)
        return end

    def question_windows(
        self, question: str, context: str, *, max_tokens: int, doc_stride: int, max_question_tokens: int | None = None
    ) -> Iterator[Window]:
        """Overlapping windows of a context that is too long for one row, each behind the whole question.

        Args:
            max_tokens: length of a window with the question and special tokens.
            doc_stride: how many context tokens neighbouring windows share; below the room that the question leaves.
            max_question_tokens: cut the question to so many tokens; None keeps it whole.
        """
        asked = self._tokenizer.encode(question, add_special_tokens=False)
        found = self._tokenizer.encode(context, add_special_tokens=False)
        before, between, behind, (first_segment, second_segment) = self._pair
        asked_ids = self._known(asked.ids[:max_question_tokens])
        head = np.concatenate([before, _of_segment(asked_ids, first_segment), between], axis=1)
        own = _of_segment(self._known(found.ids), second_segment)
        asked_at = slice(before.shape[1], before.shape[1] + len(asked_ids))
        question_spans = tuple(asked.offsets[:max_question_tokens])
        spans, words = tuple(found.offsets), tuple(_words(found))
        first, count = head.shape[1], len(spans)
        room = max_tokens - first - behind.shape[1]
        for start in range(0, max(1, count - doc_stride), room - doc_stride):
            part = slice(start, min(start + room, count))
            tokens, segments = np.concatenate([head, own[:, part], behind], axis=1)
            yield Window(
                tokens=tokens,
                segments=segments,
                context=slice(first, first + part.stop - part.start),
                spans=spans[part],
                words=words[part],
                question=asked_at,
                question_spans=question_spans,
            )

    @cached_property
    def _pair(self) -> tuple[Tokens, Tokens, Tokens, tuple[int, int]]:
        """Special tokens before, between and behind a pair of texts, ids over segments, and the texts' own segments.

        Read off the shortest pair: what `truncate` cuts from long texts stays with them, and `post_process` puts every
        such piece of the one beside every piece of the other.
        """
        text = self._tokenizer.encode("a", add_special_tokens=False)
        pair = self._tokenizer.post_process(text, text)
        both = np.array([self._known(pair.ids), pair.type_ids], np.int64)
        # The tokens of a question are those of no sequence, like special ones.
        first, second = pair.special_tokens_mask.index(0), pair.sequence_ids.index(1)
        ends = first + len(text.ids), second + len(text.ids)
        return (
            both[:, :first],
            both[:, ends[0] : second],
            both[:, ends[1] :],
            (pair.type_ids[first], pair.type_ids[second]),
        )

    @property
    def single_specials(self) -> int:
        """How many special tokens stand around one text, with those of the prefix."""
        if self._around is None:
            around = int(self._tokenizer.num_special_tokens_to_add(False))
        else:
            around = len(self._around.before) + len(self._around.after)
        return len(self._first) + around + self.count_bare(self._prefix)

    @property
    def pair_specials(self) -> int:
        """How many special tokens stand around a pair of texts."""
        return int(self._tokenizer.num_special_tokens_to_add(True))

    def count_bare(self, text: str) -> int:
        """How many tokens a text has without special tokens."""
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)


def _of_segment(ids: Tokens, segment: int) -> Tokens:
    """[2, length]: ids over their segment."""
    return np.stack([ids, np.full_like(ids, segment)])


def _words(found: Encoding) -> Iterator[tuple[int, int]]:
    """For each token the characters of its word; `word_to_chars` would read every token once for each word."""
    for word, tokens in groupby(zip(found.word_ids, found.offsets, strict=True), itemgetter(0)):
        spans = [span for _, span in tokens]
        yield from spans if word is None else [(spans[0][0], spans[-1][1])] * len(spans)


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """The stretch without blanks around it; one of nothing else as it is."""
    found = text[start:end]
    if not found.strip():
        return start, end
    return start + len(found) - len(found.lstrip()), start + len(found.rstrip())


def clean_up_spaces(text: str) -> str:
    """Remove the spaces before English punctuation and contractions that some tokenizers leave behind."""
    return _BEFORE_PUNCTUATION.sub("", text)
