"""A text as sentences and the layout between them, so that what is translated sentence by sentence keeps its layout."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise

from sentencex import segment

# fmt: off
_TWO_LETTERS: Mapping[str, str] = {
    "amh": "am", "bul": "bg", "cat": "ca", "ces": "cs", "dan": "da", "deu": "de", "ell": "el", "eng": "en", "fin": "fi",
    "fra": "fr", "glg": "gl", "hye": "hy", "ita": "it", "kaz": "kk", "ltz": "lb", "nld": "nl", "oci": "oc", "pol": "pl",
    "por": "pt", "rus": "ru", "slk": "sk", "spa": "es", "tam": "ta", "ukr": "uk",
}
# fmt: on
"""ISO 639-1 by ISO 639-3, for the languages that `sentencex` has rules of."""

_BULLET = re.compile(r"(?:[-*•–—>#]+|\d{1,3}[.)])\s+")
_WIDE_BLANK = re.compile(r"[^\S\x00-\x7f]")
"""Blanks of several bytes, in the middle of which `sentencex` cuts behind a single capital, and then panics."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text: a sentence for the model, or layout that is passed through as it stands."""

    text: str
    is_sentence: bool


def pieces(text: str, language: str) -> Iterator[Piece]:
    """Split a text into sentences and the layout between them; joined they give the text again.

    Line breaks, indentation, bullets, blanks between sentences and stretches without a letter are layout.

    Args:
        language: ISO 639 code, with or without script or country behind it, for the abbreviations and quotation marks
            that sentence splitting needs to know.
    """
    code = language.partition("_")[0]
    language = _TWO_LETTERS.get(code, code)
    for line in text.splitlines(keepends=True):
        for sentence in _sentences(language, line):
            yield from _trim(sentence)


def _sentences(language: str, line: str) -> list[str]:
    """Stretches of a line, each with one sentence; the whole line where `sentencex` fails."""
    try:
        parts = segment(language, _WIDE_BLANK.sub(" ", line))
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # which no module has, and which is no `Exception`
            raise
        return [line]
    return [line[start:end] for start, end in pairwise(accumulate(map(len, parts), initial=0))]


def _trim(sentence: str) -> Iterator[Piece]:
    body = sentence.strip()
    start = sentence.index(body) if body else len(sentence)
    if bullet := _BULLET.match(sentence, start):
        start = bullet.end()
    end = len(sentence.rstrip())
    if not any(letter.isalpha() for letter in sentence[start:end]):
        yield Piece(sentence, is_sentence=False)
        return
    if start:
        yield Piece(sentence[:start], is_sentence=False)
    yield Piece(sentence[start:end], is_sentence=True)
    if end < len(sentence):
        yield Piece(sentence[end:], is_sentence=False)
