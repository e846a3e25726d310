"""Limits, deadlines and the computed Retry-After, with the clock in the test's hands."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import TooLarge
from service.admission import CAPACITY_MEMORY_S, RATE_MEMORY_S, Admission, Change, Limits, Load, Rate, time_left_s
from service.errors import DeadlinePassed, Overloaded


def waiting(rows: int, tokens: int, limits: Limits) -> Admission:
    admission = Admission(limits)
    admission.book(Change(waiting_rows=rows, waiting_tokens=tokens))
    return admission


def test_a_request_is_taken_up_to_the_limits_exactly() -> None:
    admission = waiting(90, 500, Limits(100, 1000))
    admission.offer(10, 500)
    with pytest.raises(Overloaded, match="90 rows wait already and the request adds 11, at most 100 may wait"):
        admission.offer(11, 1)
    with pytest.raises(Overloaded, match="500 tokens wait already and the request adds 501, at most 1000 may wait"):
        admission.offer(1, 501)


def test_what_could_never_be_taken_is_too_large_rather_than_to_be_sent_again() -> None:
    admission = waiting(0, 0, Limits(100, 1000))
    with pytest.raises(TooLarge, match="101 rows, at most 100"):
        admission.offer(101, 101)
    with pytest.raises(TooLarge, match="1001 tokens, at most 1000"):
        admission.offer(1, 1001)


def test_what_runs_makes_room_for_what_waits_but_stays_in_the_backlog() -> None:
    admission = waiting(100, 1000, Limits(100, 1000))
    admission.book(Change(waiting_rows=-1, waiting_tokens=-10, running_tokens=10))
    admission.offer(1, 10)
    admission.rate.measure(100, busy_s=1.0)
    assert admission.backlog_s() == pytest.approx(10.0)


def test_retry_after_is_the_backlog_over_the_measured_rate_in_whole_seconds() -> None:
    admission = waiting(10, 1000, Limits(10, 5000))
    admission.book(Change(running_tokens=210))
    admission.rate.measure(250, busy_s=0.5)  # 500 tokens/s, so 2.42 s
    with pytest.raises(Overloaded) as refused:
        admission.offer(1, 1)
    assert refused.value.retry_after_s == 3


def test_retry_after_is_at_least_a_second_also_before_anything_was_measured() -> None:
    admission = waiting(1, 1, Limits(1, 100))
    assert admission.backlog_s() == 0.0
    assert admission.retry_after_s() == 1
    admission.rate.measure(100, busy_s=0.01)
    assert admission.retry_after_s() == 1


def test_clearing_forgets_the_backlog_but_not_the_rate() -> None:
    admission = waiting(5, 50, Limits(5, 50))
    admission.rate.measure(10, busy_s=1.0)
    admission.clear()
    assert admission.backlog_s() == 0.0
    admission.offer(5, 50)
    assert admission.rate.tokens_per_s == pytest.approx(10.0)


@given(st.lists(st.integers(1, 30_000), min_size=1, max_size=20))
def test_a_steady_rate_is_measured_as_it_is_from_the_first_iteration(iterations_ms: list[int]) -> None:
    rate = Rate()
    for busy_ms in iterations_ms:
        rate.measure(busy_ms, busy_s=busy_ms / 1000)
        assert rate.tokens_per_s == pytest.approx(1000)


def test_an_iteration_that_finishes_nothing_costs_time_all_the_same() -> None:
    rate = Rate()
    rate.measure(100, busy_s=0.5)
    rate.measure(0, busy_s=0.5)
    assert rate.tokens_per_s == pytest.approx(100, rel=0.05)


def test_old_measurements_fade_over_busy_time() -> None:
    rate = Rate()
    for _ in range(1000):
        rate.measure(10, busy_s=0.1)  # 100 tokens/s for 100 s
    for _ in range(round(RATE_MEMORY_S / 0.1)):
        rate.measure(100, busy_s=0.1)  # then 1,000 tokens/s for one memory
    expected = 1000 + (100 - 1000) * math.exp(-1)
    assert rate.tokens_per_s == pytest.approx(expected, rel=0.02)


def test_nothing_finished_is_no_rate() -> None:
    rate = Rate()
    rate.measure(0, busy_s=5.0)
    assert rate.tokens_per_s is None


def worked(rate: Rate, load: Load, *, began: float, seconds: float, tokens_per_s: int) -> float:
    """Steps of a tenth of a second, one after the other as in `Lane`; when the last one has ended."""
    for step in range(round(seconds * 10)):
        rate.measure(tokens_per_s // 10, busy_s=0.1)
        load.measure(tokens_per_s // 10, 0.1, rate.capacity_tokens_per_s, began + (step + 1) / 10)
    return began + seconds


def test_full_steps_are_a_load_of_one_and_half_the_rate_is_half_of_it_however_busy_the_model_is() -> None:
    rate, load = Rate(), Load(now=0.0)
    now = worked(rate, load, began=0.0, seconds=60, tokens_per_s=1000)
    assert load.share(now) == pytest.approx(1, abs=0.02)
    now = worked(rate, load, began=now, seconds=60, tokens_per_s=500)
    assert load.share(now) == pytest.approx(0.5, rel=0.15)  # of a capacity that has faded for a minute


def test_busy_time_counts_whole_while_no_capacity_is_known() -> None:
    load = Load(now=0.0)
    load.measure(1, busy_s=1.0, capacity_tokens_per_s=None, now=1.0)
    assert load.share(1.0) == pytest.approx(0.1)


def test_idle_time_lowers_the_load_to_a_third_in_ten_seconds() -> None:
    load = Load(now=0.0)
    now = worked(Rate(), load, began=0.0, seconds=60, tokens_per_s=1000)
    assert load.share(now + 10) / load.share(now) == pytest.approx(math.exp(-1))
    assert load.share(now + 60) < 0.01


def test_capacity_is_the_best_rate_of_late_after_a_second_of_work() -> None:
    early, rate = Rate(), Rate()
    early.measure(5000, busy_s=0.5)
    assert early.capacity_tokens_per_s is None
    for tokens in (1000, 500, 500, 500):
        rate.measure(tokens, busy_s=0.5)
    best = rate.capacity_tokens_per_s
    assert best is not None
    assert best > 1000
    for _ in range(round(CAPACITY_MEMORY_S / 0.5)):
        rate.measure(100, busy_s=0.5)
    assert rate.tokens_per_s == pytest.approx(200)
    assert rate.capacity_tokens_per_s == pytest.approx(best * math.exp(-1), rel=0.01)


def test_a_deadline_leaves_its_difference_or_has_passed() -> None:
    assert time_left_s(None, now=50.0) is None
    assert time_left_s(50.5, now=50.0) == 0.5
    with pytest.raises(DeadlinePassed, match=r"0\.250 s before"):
        time_left_s(49.75, now=50.0)
    with pytest.raises(DeadlinePassed):
        time_left_s(50.0, now=50.0)
