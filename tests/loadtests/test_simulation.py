"""The simulation agrees with what is known of queues, loses nothing, and scales as the policy promises."""

from functools import partial
from typing import Any

import numpy as np
import pytest

from loadtests.policies import OngoingRequests
from loadtests.simulated import Costs, Events, Machine
from loadtests.simulation import Asked, Group, Scaling, closed_loop, open_loop
from service.admission import Limits
from service.autoscaling import BacklogPolicy, Context

STEP_S = 0.1
MANY = Limits(10**6, 10**6)
AT_ONCE = Costs({0: 0.0}, {0: STEP_S})  # encoding takes no time, a step always the same


def arrivals(count: int, per_s: float) -> list[float]:
    return np.cumsum(np.random.default_rng(0).exponential(1 / per_s, count)).tolist()  # type: ignore[no-any-return]


def test_one_row_at_a_time_waits_as_long_as_pollaczek_and_khinchine_say() -> None:
    load = 0.7
    events = Events()
    group = Group(events, Machine(AT_ONCE, MANY, slots=1), replicas=1)
    at_s = arrivals(20_000, load / STEP_S)
    open_loop(group, events, [Asked(1, 1)] * len(at_s), at_s)
    events.run(at_s[-1] + 1000)
    waited_s = np.mean([outcome.latency_s for outcome in group.outcomes]) - STEP_S
    assert waited_s == pytest.approx(load * STEP_S / (2 * (1 - load)), rel=0.05)


def test_callers_share_steps_and_each_waits_for_its_own_tokens_and_at_most_the_step_under_way() -> None:
    events = Events()
    group = Group(events, Machine(AT_ONCE, MANY, slots=4), replicas=2)
    closed_loop(group, events, [Asked(5, 3)] * 80, callers=8)
    events.run(1000)
    steps = {round(outcome.latency_s / STEP_S, 6) for outcome in group.outcomes}
    assert steps <= {3, 4}
    assert 80 / 8 * 3 <= max(outcome.answered_s or 0 for outcome in group.outcomes) / STEP_S <= 80 / 8 * 4 + 1


def test_a_wave_is_scaled_up_for_in_time_and_loses_nothing_when_it_is_over() -> None:
    events, start_s, bound_s = Events(), 3.0, 1.0
    policy = BacklogPolicy(backlog_s=bound_s, down_after_s=5, zero_after_s=600)
    scaling = Scaling(policy, least=1, most=4, start_s=start_s, report_s=1.0, mean_s=2.0)
    group = Group(events, Machine(AT_ONCE, Limits(80, 10**6), slots=1), 1, scaling)
    calm_s, wave_s = arrivals(300, 0.5 / STEP_S), arrivals(600, 3 / STEP_S)
    for at_s in (calm_s, [20 + each for each in wave_s]):
        open_loop(group, events, [Asked(10, 1)] * len(at_s), at_s)
    backlogs: list[float] = []
    for tenth in range(1, 300):
        events.at(tenth / 10, partial(_note_backlog, group, backlogs))
    events.run(300)
    passed_s = next(tenth / 10 for tenth, backlog_s in enumerate(backlogs, 1) if backlog_s > bound_s)
    begun_s = next(each.at_s for each in group.counts if each.target > 1)
    assert 20 <= passed_s <= begun_s <= passed_s + 5
    came_s = next(each.at_s for each in group.counts if each.ready > 1)
    assert came_s == pytest.approx(begun_s + start_s)
    assert group.counts[-1].ready == 1
    assert all((outcome.answered_s is None) == outcome.is_refused for outcome in group.outcomes)
    assert len(group.outcomes) == 900
    assert 0 < sum(outcome.is_refused for outcome in group.outcomes) < 300


def _note_backlog(group: Group, backlogs: list[float]) -> None:
    backlogs.append(group.backlog_s)


def test_ray_s_own_policy_waits_for_its_delays() -> None:
    def decided(requests: float, replicas: int, now_s: float, state: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return OngoingRequests(2.0)(Context(replicas, replicas, requests, {}, 1, 4, state, now_s))

    present, state = decided(12, 1, 100, {})
    assert present == 1
    assert decided(12, 1, 129, state)[0] == 1
    assert decided(12, 1, 130, state) == (4, {})
    assert decided(2, 1, 129, state) == (1, {})
    present, state = decided(2, 4, 200, state)
    assert (present, decided(2, 4, 799, state)[0], decided(2, 4, 800, state)[0]) == (4, 4, 1)
