"""SentencePiece's text normalisation as `tokenizers` normalizers that give the same text for every input.

A SentencePiece model carries rules that rewrite one character ("ﬁ" to "fi") or several (letter and accent to one
character), and applies the longest that fits, left to right. `tokenizers.normalizers.Precompiled` reads the same table
but looks up grapheme clusters by their shortest prefix: of "e" with a circumflex and an acute it loses the acute, and
half-width katakana keep their voicing mark apart. So it is given one character at a time here, and NFC joins those that
a rule of several characters joins: what must stay apart is kept apart by a barrier.
"""

import struct
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from unicodedata import category, combining

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, normalizers

from models.errors import ModelError

BARRIER = (
    "\ufff0"  # unassigned, default ignorable: ends a grapheme cluster, and is a starter that nothing composes with
)
SPLIT = "\ufff1"  # the same, taken out before NFC
_JOINING = r"\p{M}\x{200C}\x{200D}\n\x{1F1E6}-\x{1F1FF}\x{1F3FB}-\x{1F3FF}\x{E0020}-\x{E007F}\x{E33}\x{EB3}"
_JAMO = frozenset(map(chr, [*range(0x1160, 0x1200), *range(0xD7B0, 0xD800)]))
_NFC = normalizers.NFC()  # of the Unicode version that the tokenizer will use
_BYTES = [bytes((value,)) for value in range(256)]
_LEAF, _LABEL = 1 << 31, (1 << 31) | 0xFF


class InexactRules(ModelError):
    """The rules rewrite text in a way that `tokenizers` cannot follow; the message says which."""


@lru_cache(maxsize=2)
def read_rules(charsmap: bytes) -> Mapping[str, str]:
    """What each character or sequence of characters is rewritten to.

    Args:
        charsmap: `precompiled_charsmap` of a SentencePiece model: the size of a Darts double array as uint32, the
            array (uint32 units), and the replacements, each ended by a zero byte.
    """
    if not charsmap:
        return {}
    (size,) = struct.unpack_from("<I", charsmap)
    units = np.frombuffer(charsmap, "<u4", size // 4, 4).astype(np.int64)
    texts = charsmap[4 + size :]
    labels = units & _LABEL
    places = np.flatnonzero((labels > 0) & (labels < 256))
    owners = places ^ labels[places]
    order = np.argsort(owners)
    places, owners = places[order], owners[order]
    rules = {}
    keys, bases = [b""], _children(units[:1])
    while keys:
        first, last = np.searchsorted(owners, bases), np.searchsorted(owners, bases, "right")
        below = [places[start:end] for start, end in zip(first, last, strict=True) if start < end]
        parents = np.repeat(np.arange(len(keys)), last - first)
        nodes = np.concatenate(below) if below else places[:0]
        keys = [keys[parent] + _BYTES[label] for parent, label in zip(parents, labels[nodes].tolist(), strict=True)]
        bases = nodes ^ _children(units[nodes])
        for node in np.flatnonzero(units[nodes] >> 8 & 1):
            start = int(units[bases[node]]) & ~_LEAF
            rules[keys[node].decode()] = texts[start : texts.index(b"\0", start)].decode()
    return rules


def _children(units: NDArray[np.int64]) -> NDArray[np.int64]:
    return (units >> 10) << ((units & 1 << 9) >> 6)


def character_class(characters: Iterable[str]) -> str:
    """The inside of a regular expression's brackets that matches these characters."""
    codes = np.unique(np.fromiter(map(ord, characters), np.int64))
    runs = np.split(codes, np.flatnonzero(np.diff(codes) != 1) + 1) if codes.size else []
    return "".join(rf"\x{{{run[0]:X}}}-\x{{{run[-1]:X}}}" for run in runs)


def rewritten_characters(charsmap: bytes) -> frozenset[str]:
    """Every character in the rules, except of scripts in which a rule may start where another ends.

    Unicode 16 brought three of those: Tulu-Tigalari, Gurung Khema and Kirat Rai.
    """
    rules = read_rules(charsmap)
    joined = {key: text for key, text in rules.items() if len(key) > 1}
    both = _starting_inside(joined)
    tangled = {part for key, text in joined.items() if not both.isdisjoint(key) for part in key + text}
    return frozenset().union(*rules.keys(), *rules.values()) - tangled


def _starting_inside(joined: Collection[str]) -> set[str]:
    return {key[0] for key in joined} & {key[place] for key in joined for place in range(1, len(key))}


def charsmap_normalizers(
    charsmap: bytes, known: frozenset[str], symbols: Collection[str] = ()
) -> list[normalizers.Normalizer]:
    """Normalizers that rewrite text as the rules do, exactly where it matters to a vocabulary.

    The text must start with a character that no rule concerns: `tokenizers` cannot insert before the first one.

    Args:
        known: every character of the vocabulary; what is made of others is unknown however it is rewritten.
        symbols: pieces that SentencePiece never rewrites.

    Raises:
        InexactRules: a rule joins characters otherwise than NFC does, or rewrites what `symbols` are made of.
    """
    rules = read_rules(charsmap)
    if not rules:
        return []
    singles = {key: text for key, text in rules.items() if len(key) == 1}
    told_apart = known | {key for key, text in singles.items() if not known.isdisjoint(text)}
    joined = {key: text for key, text in rules.items() if len(key) > 1 and not told_apart.isdisjoint(key + text)}
    _check(singles, joined, known, symbols)
    odd = {key: text for key, text in joined.items() if _composed(key, singles) != text}
    canonical = joined.keys() - odd.keys()
    followers = {key[place] for key in canonical for place in range(1, len(key))}
    joining = f"[{_JOINING}{character_class(_JAMO | followers)}]"
    found: list[normalizers.Normalizer] = [
        normalizers.Replace(key, odd[key]) for key in sorted(odd, key=len, reverse=True)
    ]
    if canonical:
        apart = f"(?={joining})(?:{_apart(canonical, followers, symbols)})"
        found.append(normalizers.Replace(Regex(apart), BARRIER))
    found += [
        normalizers.Replace(Regex(f"(?={joining})"), SPLIT),
        normalizers.Precompiled(charsmap),
        normalizers.Replace(SPLIT, ""),
    ]
    return [*found, normalizers.NFC(), normalizers.Replace(BARRIER, "")] if canonical else found


def _composed(key: str, singles: Mapping[str, str]) -> str:
    composed: str = _NFC.normalize_str("".join(singles.get(character, character) for character in key))
    return composed


def _apart(joined: Collection[str], followers: set[str], symbols: Collection[str]) -> str:
    """An expression for the places before a character that no rule joins to what precedes it."""
    contexts = defaultdict(set)
    for key in joined:
        for place in range(1, len(key)):
            contexts[key[place]].add(key[:place])
    alike = defaultdict(set)
    for follower, found in contexts.items():
        alike[_lookbehind(found)].add(follower)
    places = [f"(?=[{character_class(group)}])(?<!{before})" for before, group in alike.items()]
    behind_symbol = [f"(?<={'|'.join(map(literal, symbols))})"] if symbols else []
    return "|".join([*places, *behind_symbol, f"(?![{character_class(followers)}])"])


def _lookbehind(contexts: set[str]) -> str:
    """Alternatives for these texts, those that share their end and differ in one character as one."""
    ends = defaultdict(set)
    for context in contexts:
        ends[context[1:]].add(context[0])
    same = defaultdict(set)
    for end, first in ends.items():
        same[len(end), character_class(first), end[1:]].add(end[:1])
    return "|".join(
        f"[{first}]" + (f"[{character_class(second)}]" if length else "") + literal(rest)
        for (length, first, rest), second in same.items()
    )


def literal(text: str) -> str:
    """A regular expression that matches this text and nothing else."""
    return "".join(rf"\x{{{ord(character):X}}}" for character in text)


def _joins(character: str, inside: Collection[str]) -> bool:
    return character in inside or category(character).startswith("M")


def _check(
    singles: Mapping[str, str], joined: Mapping[str, str], known: frozenset[str], symbols: Collection[str]
) -> None:
    if both := _starting_inside(joined):
        raise InexactRules(f"its normalisation joins {min(both)!a} both to what precedes and to what follows")
    inside = {key[place] for key in joined for place in range(1, len(key))}
    unstable = [
        text
        for key, text in singles.items()
        if not known.isdisjoint(text)
        and (_NFC.normalize_str(text) != text or (combining(text[:1] or " ") and not _joins(key, inside)))
    ]
    if joined and unstable:
        raise InexactRules(f"its normalisation gives {unstable[0]!a}, which NFC changes")
    changed = [symbol for symbol in symbols if " " in symbol or not singles.keys().isdisjoint(symbol)]
    if changed:
        raise InexactRules(f"its normalisation rewrites what the user-defined piece {changed[0]!r} is made of")
