"""The simulated ways to answer from one queue agree with what can be said by hand."""

from itertools import pairwise

import numpy as np
import pytest

from loadtests.tails import PASS_S, SPEEDUP, TOKEN_S, drawn, helped, one_queue, replicas


def test_one_server_makes_each_wait_as_lindley_says() -> None:
    tokens, at_s = drawn(200, 0.8, seed=1)
    needed_s, latencies = PASS_S + TOKEN_S * tokens, one_queue(1)(tokens, at_s)
    assert latencies[0] == pytest.approx(needed_s[0])
    for before, after in pairwise(range(200)):
        waited_s = max(0.0, at_s[before] + latencies[before] - at_s[after])
        assert latencies[after] == pytest.approx(waited_s + needed_s[after])


def test_the_first_free_server_takes_whose_turn_it_is() -> None:
    tokens, at_s = np.array([100, 200, 300, 24]), np.zeros(4)
    of_24, of_100, of_200, of_300 = (PASS_S + TOKEN_S * length for length in (24, 100, 200, 300))
    assert one_queue(2)(tokens, at_s).tolist() == pytest.approx([of_100, of_200, of_100 + of_300, of_200 + of_24])
    shortest = one_queue(2, shortest_first=True)(tokens, at_s)
    assert shortest.tolist() == pytest.approx([of_100, of_24 + of_200, of_100 + of_300, of_24])


def test_replicas_keep_all_waiting_for_a_pass_that_took_more() -> None:
    latencies = replicas(512)(np.array([60, 60, 64, 64, 64, 64]), np.array([0, 0, 0.001, 0.001, 0.001, 0.001]))
    small = replicas(64)(np.array([60, 60, 64, 64, 64, 64]), np.array([0, 0, 0.001, 0.001, 0.001, 0.001]))
    assert latencies[2] == pytest.approx(latencies[4])
    assert small[2] < small[4] == pytest.approx(latencies[4], rel=0.2)


def test_a_pass_is_faster_while_the_other_core_is_idle() -> None:
    of_100, of_200 = (PASS_S + TOKEN_S * length for length in (100, 200))
    alone = helped(np.array([100, 200]), np.array([0.0, 1.0]))
    assert alone.tolist() == pytest.approx([of_100 / SPEEDUP, of_200 / SPEEDUP])
    together = helped(np.array([100, 200]), np.zeros(2))
    assert together.tolist() == pytest.approx([of_100, of_100 + (of_200 - of_100) / SPEEDUP])
