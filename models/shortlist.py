"""A lexical shortlist: for each source token the words that are likely in its translation, as a file of a bundle."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.bundle import GenerationDefaults
from models.decoding import Advance, Decoder, Logits
from models.errors import BundleError
from models.task import Generation, Tokens

_FIELDS = ("frequent", "starts", "likely")


class Shortlist:
    """What a translation of given tokens may be made of.

    Output layers are large and most of their words have nothing to do with a given source (Jean et al. 2015, arXiv
    1412.2007; Devlin 2017, arXiv 1705.01991).

    Args:
        frequent: int64 [words], allowed in every row.
        starts: int64 [vocabulary + 1]; the words of source token i are `likely[starts[i] : starts[i + 1]]`.
        likely: int64 [words].

    Raises:
        ValueError: the arrays do not fit together.
    """

    def __init__(self, frequent: Tokens, starts: Tokens, likely: Tokens) -> None:
        self.vocabulary = len(starts) - 1
        words = np.concatenate([frequent, likely])
        if starts[0] != 0 or starts[-1] != len(likely) or (np.diff(starts) < 0).any():
            raise ValueError("starts must rise from 0 to the number of likely words")
        if len(words) and not 0 <= words.min() <= words.max() < self.vocabulary:
            raise ValueError(f"words must be ids of a vocabulary of {self.vocabulary:,}")
        self.frequent = frequent
        self._starts, self._likely = starts, likely

    def candidates(self, source: Tokens, needed: Collection[int]) -> Tokens:
        """The words that a row may write, int64, each once, in rising order.

        They are the frequent ones, those that are likely for a token of the source, the tokens of the source, so that
        names can be copied, and those `needed` for other reasons.
        """
        likely = [self._likely[self._starts[token] : self._starts[token + 1]] for token in set(source.tolist())]
        return np.unique(np.concatenate([self.frequent, source, np.array([*needed], np.int64), *likely]))

    def save(self, path: Path) -> None:
        """Write the file that `read` reads."""
        narrow = np.uint16 if self.vocabulary <= 2**16 else np.uint32
        arrays: dict[str, NDArray[np.unsignedinteger]] = {
            "frequent": self.frequent.astype(narrow),
            "starts": self._starts.astype(np.uint32),
            "likely": self._likely.astype(narrow),
        }
        with path.open("wb") as stream:
            np.savez_compressed(stream, **arrays)  # type: ignore[arg-type] # its stub takes them for flags

    @classmethod
    def read(cls, path: Path) -> "Shortlist":
        """Read the file of a bundle.

        Raises:
            BundleError: it is not a shortlist.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(*(arrays[name].astype(np.int64) for name in _FIELDS))
        except Exception as error:  # whatever NumPy and zipfile make of another file
            raise BundleError(f"{path}: not a shortlist: {error}") from error


def needed_tokens(generation: Generation, defaults: GenerationDefaults) -> set[int]:
    """What a row must be able to write or has read, whatever its source is."""
    wanted = (
        defaults.decoder_start_token_id,
        defaults.eos_token_id,
        defaults.forced_bos_token_id,
        defaults.forced_eos_token_id,
        generation.forced_bos_token_id,
    )
    return {token for token in wanted if token is not None}


class Renumbered:
    """Decodes a row that knows its candidates alone, by their places among them.

    So whatever is computed over all words of a row, softmax and ranking too, has the same order and the same sums
    whoever runs beside it.

    Args:
        decoder: makes what decodes, of settings whose ids are places.
        candidates: int64, rising; all of `needed_tokens` are among them.
    """

    def __init__(
        self,
        decoder: Callable[[Generation, GenerationDefaults], Decoder],
        generation: Generation,
        defaults: GenerationDefaults,
        candidates: Tokens,
    ) -> None:
        self._words: list[int] = candidates.tolist()
        place = {word: index for index, word in enumerate(self._words)}

        def known(words: Collection[int]) -> bool:
            return all(word in place for word in words)

        def placed(token: int | None) -> int | None:
            return None if token is None else place[token]

        renumbered = defaults.model_copy(
            update={
                "decoder_start_token_id": place[defaults.decoder_start_token_id],
                "eos_token_id": place[defaults.eos_token_id],
                "forced_bos_token_id": placed(defaults.forced_bos_token_id),
                "forced_eos_token_id": placed(defaults.forced_eos_token_id),
                "suppressed_token_ids": tuple(
                    place[token] for token in defaults.suppressed_token_ids if token in place
                ),
                "bad_words": tuple(tuple(place[token] for token in word) for word in defaults.bad_words if known(word)),
            }
        )
        own = replace(generation, forced_bos_token_id=placed(generation.forced_bos_token_id))
        self._decoder = decoder(own, renumbered)

    def advance(self, likeliest: Sequence[int], logits: Logits, slots: Sequence[int]) -> Advance:
        """Go on by one token; `likeliest` and the columns of `logits` are places, what comes back are words."""
        found = self._decoder.advance(likeliest, logits, slots)
        words = self._words
        return found._replace(
            tokens=tuple([words[place] for place in found.tokens]), new=tuple([words[place] for place in found.new])
        )
