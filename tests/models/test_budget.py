"""A model that does not fit the memory of a GPU is refused when it is loaded, with the numbers; no GPU is needed."""

import pytest

from models.budget import Footprint, check_budget
from models.caches import slot_bytes
from models.errors import BundleError
from models.load import load
from models.session import provider_options
from tests.models.embedded import QUESTION_ANSWERING, TRANSLATION, session

GB = 10**9


@pytest.mark.parametrize(
    ("weights", "slot", "budget", "most"),
    [(2 * GB, 10**8, 10 * GB, 60), (2 * GB, 10**8, 2 * GB, -4), (2 * GB, 0, 3 * GB, 0), (2 * GB, 0, 2 * GB, -1)],
)
def test_slots_fill_what_weights_and_passes_leave(weights: int, slot: int, budget: int, most: int) -> None:
    footprint = Footprint(weights, slot)
    assert footprint.most_slots(budget) == most
    if most > 0:
        check_budget("m", footprint, most, budget)
        assert footprint.total(most) <= 0.8 * budget < footprint.total(most + 1)
    if slot:
        with pytest.raises(BundleError):
            check_budget("m", footprint, most + 1 if most > 0 else 1, budget)


def test_the_sentence_names_the_numbers_and_what_to_change() -> None:
    with pytest.raises(BundleError) as refused:
        check_budget("opus", Footprint(2 * GB, 10**8), 64, 10 * GB)
    assert str(refused.value) == (
        "opus needs 8.40 GB of GPU memory, 2.00 GB of it for weights and 100.0 MB for each of 64 slots; 8.00 GB may be"
        " kept, four fifths of the 10.00 GB that it has: set slots to 60 or fewer, or raise gpu_memory_mb or num_gpus"
    )


def test_a_slot_is_what_the_step_graph_reads_and_writes_of_it() -> None:
    layers, heads, width, vocabulary = 2, 8, 32, 8000
    caches = 2 * layers * heads * width * (64 + 24) * 4
    last = 2 * layers * heads * width * 4
    assert slot_bytes(session(TRANSLATION, "step"), 64, 24) == caches + last + 2 * vocabulary * 4


def test_a_model_is_loaded_where_it_fits_and_refused_where_it_does_not() -> None:
    held = load(TRANSLATION, slots=4, memory_bytes=10**9).memory_bytes
    with pytest.raises(BundleError, match=r"en-fr needs .* for each of 64 slots; .*: set slots to \d+ or fewer"):
        load(TRANSLATION, slots=64, memory_bytes=int(held * 1.5))
    with pytest.raises(BundleError, match=r"minilm-squad needs .* for weights; .*: raise gpu_memory_mb or num_gpus"):
        load(QUESTION_ANSWERING, memory_bytes=10**6)


def test_what_the_cuda_provider_is_told() -> None:
    assert provider_options(None) == {"device_id": "0", "arena_extend_strategy": "kSameAsRequested"}
    assert provider_options(5 * GB)["gpu_mem_limit"] == "5000000000"
