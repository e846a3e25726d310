"""What a caller says of decoding, on top of the bundle's settings and within its limits."""

from typing import Any

import pytest

from models.bundle import GenerationDefaults, Limits
from models.errors import InvalidInput
from models.generation import GenerateParameters, generation
from models.task import Generation

LIMITS = Limits(max_tokens=64, max_new_tokens=32, max_beams=6)
GREEDY = GenerationDefaults(decoder_start_token_id=0, eos_token_id=1, max_new_tokens=16)
BEAMS = GREEDY.model_copy(
    update={"num_beams": 4, "length_penalty": 0.6, "early_stopping": "never", "no_repeat_ngram_size": 3}
)


def settled(defaults: GenerationDefaults, **asked: Any) -> Generation:
    return generation(GenerateParameters(**asked), defaults, LIMITS)


def test_a_bundles_own_settings_hold_where_nothing_is_asked() -> None:
    assert generation(None, GREEDY, LIMITS).num_beams == 1
    found = settled(BEAMS)
    assert (found.num_beams, found.length_penalty, found.early_stopping) == (4, 0.6, "never")
    assert (found.no_repeat_ngram_size, found.max_new_tokens, found.do_sample) == (3, 16, False)


@pytest.mark.parametrize("defaults", [GREEDY, BEAMS])
def test_what_is_asked_replaces_the_bundles_own_settings(defaults: GenerationDefaults) -> None:
    asked = {"num_beams": 6, "length_penalty": 0.0, "early_stopping": False, "no_repeat_ngram_size": 0}
    found = settled(defaults, **asked)
    assert {name: getattr(found, name) for name in asked} == asked


def test_greedy_and_sampled_answers_may_be_asked_of_a_bundle_with_beams() -> None:
    assert settled(BEAMS, num_beams=1).num_beams == 1
    sampled = settled(BEAMS, do_sample=True, seed=3)
    assert (sampled.num_beams, sampled.do_sample, sampled.seed) == (1, True, 3)


@pytest.mark.parametrize(
    ("defaults", "asked", "message"),
    [
        (GREEDY, {"num_beams": 7}, "num_beams may be at most 6 for this model, got 7"),
        (GREEDY, {"num_beams": 2, "do_sample": True}, "num_beams must be 1 with do_sample: true, .*, got 2"),
        (GREEDY, {"length_penalty": 2.0}, "length_penalty needs num_beams above 1, got length_penalty 2.0 without it"),
        (BEAMS, {"early_stopping": False, "num_beams": 1}, "early_stopping needs num_beams above 1, got .* False"),
        (BEAMS, {"length_penalty": 2.0, "do_sample": True}, "length_penalty needs num_beams above 1"),
        (BEAMS, {"temperature": 2.0}, "temperature needs do_sample: true, got temperature 2.0 without it"),
    ],
)
def test_what_does_not_fit_is_refused(defaults: GenerationDefaults, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as refusal:
        settled(defaults, **asked)
    assert refusal.value.pointer == f"/parameters/generate_parameters/{message.split(maxsplit=1)[0]}"


def test_a_model_with_few_slots_takes_no_more_beams() -> None:
    assert LIMITS.within(4).max_beams == 4
    assert LIMITS.within(32).max_beams == 6


def test_a_checkpoints_own_sampling_holds_for_requests_that_sample_and_say_nothing_else() -> None:
    own = BEAMS.model_copy(update={"temperature": 0.7, "top_k": 40, "top_p": 0.9})
    found = settled(own, do_sample=True)
    assert (found.temperature, found.top_k, found.top_p) == (0.7, 40, 0.9)
    found = settled(own, do_sample=True, temperature=2.0, top_k=0, top_p=1.0)
    assert (found.temperature, found.top_k, found.top_p) == (2.0, 0, 1.0)
    found = settled(GREEDY, do_sample=True)
    assert (found.temperature, found.top_k, found.top_p) == (1.0, 0, 1.0)
