"""Greedy and beam search give the tokens that transformers' `generate` gives, on float32 graphs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import cycle, product
from typing import Any

import numpy as np
import pytest
import torch

from models.bundle import GenerationDefaults
from models.load import load_model
from models.task import EarlyStopping, Generation, Row
from tests.export.checkpoints import VOCABULARY
from tests.export.exported import Exported
from tests.models.embedded import run

SOURCES = np.random.default_rng(1).integers(2, VOCABULARY, (12, 9))
END, OTHER_END = 1, 9

pytestmark = pytest.mark.filterwarnings("ignore:Unfeasible length constraints")  # of 12 tokens at least and 5 at most

Settings = Mapping[str, Any]

# What a bundle may hold beside a caller's settings: our names and values, and what `generate` is told for the same.
HELD: Sequence[tuple[Settings, Settings]] = (
    ({}, {}),
    ({"forced_eos_token_id": END}, {"forced_eos_token_id": END}),
    ({"forced_bos_token_id": 5, "min_new_tokens": 4}, {"forced_bos_token_id": 5, "min_length": 5}),
    (
        {"suppressed_token_ids": (0, 3), "renormalize_logits": True},
        {"bad_words_ids": [[0], [3]], "renormalize_logits": True},
    ),
    (
        {"bad_words": tuple((first, second) for first in range(0, 64, 2) for second in range(2, 64, 3))},
        {"bad_words_ids": [[first, second] for first in range(0, 64, 2) for second in range(2, 64, 3)]},
    ),
    (
        {"eos_token_id": OTHER_END, "forced_eos_token_id": OTHER_END},
        {"eos_token_id": OTHER_END, "forced_eos_token_id": OTHER_END},
    ),
    ({"min_new_tokens": 12, "forced_eos_token_id": END}, {"min_new_tokens": 12, "forced_eos_token_id": END}),
)
NOTHING_HELD: Settings = {
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "bad_words_ids": None,
    "renormalize_logits": False,
    "min_length": None,
}


class Pair:
    """A checkpoint, and the bundle that was made from it."""

    def __init__(self, exported: Exported) -> None:
        self._bundle = exported.bundle
        self._original = exported.original.model

    def theirs(self, generation: Generation, held: Settings) -> list[list[int]]:
        sources = torch.from_numpy(SOURCES)
        asked = {
            name: getattr(generation, name) for name in ("num_beams", "no_repeat_ngram_size", "repetition_penalty")
        }
        if generation.num_beams > 1:
            asked |= {"length_penalty": generation.length_penalty, "early_stopping": generation.early_stopping}
        with torch.inference_mode():
            found = self._original.generate(
                sources,
                attention_mask=torch.ones_like(sources),
                do_sample=False,
                max_length=generation.max_new_tokens + 1,
                **{**NOTHING_HELD, **asked, **held},
            )
        end = held.get("eos_token_id", END)
        rows = [row[1:] for row in found.tolist()]
        return [row[: row.index(end)] if end in row else row for row in rows]

    def ours(self, generation: Generation, held: Settings) -> list[list[int]]:
        return self.together([generation] * len(SOURCES), held)

    def together(self, generations: Sequence[Generation], held: Settings) -> list[list[int]]:
        """Each source with settings of its own, all side by side."""
        defaults = GenerationDefaults(
            **{"decoder_start_token_id": 0, "eos_token_id": END, "max_new_tokens": 16, **held}
        )
        bundle = replace(self._bundle, manifest=self._bundle.manifest.model_copy(update={"generation": defaults}))
        model = load_model(bundle, "fp32", slots=sum(generation.num_beams for generation in generations))
        pairs = zip(SOURCES, generations, strict=True)
        found = run(
            model, {index: Row(source, generation=generation) for index, (source, generation) in enumerate(pairs)}
        )
        return [found.tokens[index] for index in range(len(SOURCES))]


@pytest.fixture(scope="module")
def pair(exports: Callable[[str], Exported]) -> Pair:
    return Pair(exports("marian"))


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
@pytest.mark.parametrize("num_beams", [2, 5])
def test_beams_are_those_of_transformers(pair: Pair, num_beams: int, early_stopping: EarlyStopping) -> None:
    """Every length penalty with every size of n-grams, each time with something else in the bundle."""
    outputs: list[tuple[int, ...]] = []
    held, longest = cycle([*HELD[num_beams:], *HELD[:num_beams]]), cycle((14, 5, 14, 9))
    for length_penalty, no_repeat_ngram_size in product((-0.5, 0.6, 1.0, 2.0), (0, 2, 3)):
        generation = Generation(
            next(longest),
            num_beams=num_beams,
            early_stopping=early_stopping,
            length_penalty=length_penalty,
            no_repeat_ngram_size=no_repeat_ngram_size,
        )
        ours, theirs = next(held)
        found = pair.ours(generation, ours)
        assert found == pair.theirs(generation, theirs), (generation, ours)
        outputs += map(tuple, found)
    assert len({len(output) for output in outputs}) > 6
    assert len(set(outputs)) > len(outputs) / 4


def test_a_repetition_penalty_applies_to_log_probabilities(pair: Pair) -> None:
    for num_beams, penalty in product((2, 4), (0.8, 1.3)):
        generation = Generation(14, num_beams=num_beams, repetition_penalty=penalty)
        assert pair.ours(generation, {}) == pair.theirs(generation, {})


@pytest.mark.parametrize("held", HELD)
def test_greedy_tokens_are_those_of_transformers(pair: Pair, held: tuple[Settings, Settings]) -> None:
    ours, theirs = held
    for max_new_tokens, no_repeat_ngram_size, penalty in product((1, 5, 14), (0, 2), (1.0, 1.3)):
        generation = Generation(max_new_tokens, no_repeat_ngram_size=no_repeat_ngram_size, repetition_penalty=penalty)
        assert pair.ours(generation, ours) == pair.theirs(generation, theirs), generation


def test_each_row_begins_with_the_token_of_its_own_language_whatever_its_neighbours_do(pair: Pair) -> None:
    """Greedy rows, beams and sampled rows of three languages and of the bundle's default, in one batch."""
    held: Settings = {"forced_bos_token_id": 5, "forced_eos_token_id": END}
    languages = [None, 20, 33, 47]
    settings: Sequence[Mapping[str, Any]] = ({}, {"num_beams": 3}, {"do_sample": True, "seed": 7}, {"num_beams": 4})
    kinds = [settings[(index + index // 4) % 4] for index in range(len(SOURCES))]
    mixed = [Generation(14, forced_bos_token_id=languages[index % 4], **kind) for index, kind in enumerate(kinds)]
    found = pair.together(mixed, held)
    for index, generation in enumerate(mixed):
        first = 5 if generation.forced_bos_token_id is None else generation.forced_bos_token_id
        assert found[index][0] == first
        if not generation.do_sample:
            expected = pair.theirs(generation, {**held, "forced_bos_token_id": first})[index]
            assert found[index] == expected, generation
    sampled = [index for index, generation in enumerate(mixed) if generation.do_sample]
    for index in sampled:
        alone = pair.together([mixed[index]] * len(SOURCES), held)
        assert found[index] == alone[index]
    asked = {(each.num_beams, each.do_sample, each.forced_bos_token_id) for each in mixed}
    assert len(asked) == 12, "every kind of decoding meets three first tokens"
