"""Gives a text that a lower-casing model wrote the capitals, accents and spacing of the source that it speaks of."""

import re
import unicodedata
from collections import Counter, defaultdict
from itertools import pairwise

_WORD = re.compile(r"[^\W_]+|[^\w\s]|_")
_GLUED_BEFORE = frozenset(".,;:!?)]}%'-/’")
_GLUED_BEHIND = frozenset("([{'-/’$\\")
_SENTENCE_ENDS = frozenset(".!?:")


class Surface:
    """How the words of a source are written, and between which of them it has no blank.

    A word whose only capital is the first letter of a sentence counts as lower case.
    """

    def __init__(self, source: str) -> None:
        found = list(_WORD.finditer(unicodedata.normalize("NFC", source)))
        self._forms: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._apart: Counter[tuple[str, str]] = Counter()
        previous = "."
        for match in found:
            form = match.group()
            if previous in _SENTENCE_ENDS and not _has_inner_capital(form):
                form = form.lower()
            self._forms[_plain(form)][form] += 1
            previous = form
        for left, right in pairwise(found):
            blank = 1 if left.end() < right.start() else -1
            self._apart[_plain(left.group()), _plain(right.group())] += blank

    def restore(self, text: str) -> str:
        """The text with the source's most frequent form of each word, and a capital at its start.

        Blanks stand where the source has them between the same two words, elsewhere by the rules of English.
        """
        words = _WORD.findall(text)
        if not words:
            return text
        forms = [self._form(word) for word in words]
        if forms[0].islower():
            forms[0] = forms[0][:1].upper() + forms[0][1:]
        parts = [forms[0]]
        for (left, right), form in zip(pairwise(words), forms[1:], strict=True):
            parts.append(f" {form}" if self._is_apart(left, right) else form)
        return "".join(parts)

    def _form(self, word: str) -> str:
        forms = self._forms.get(_plain(word))
        return forms.most_common(1)[0][0] if forms else word

    def _is_apart(self, left: str, right: str) -> bool:
        seen = self._apart[_plain(left), _plain(right)]
        if seen:
            return seen > 0
        return left not in _GLUED_BEHIND and right not in _GLUED_BEFORE


def _plain(word: str) -> str:
    """Lower case without accents, as uncased tokenizers make it."""
    return "".join(
        letter for letter in unicodedata.normalize("NFD", word.lower()) if unicodedata.category(letter) != "Mn"
    )


def _has_inner_capital(word: str) -> bool:
    return any(letter.isupper() for letter in word[1:])
