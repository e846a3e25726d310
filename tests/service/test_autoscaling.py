"""Autoscaling on synthetic series: quick up, slow down, no flapping, bounds, to zero and back."""

from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from service.autoscaling import BACKLOG, IDLE, LOAD, BacklogPolicy, Bounds, Context, Seen, Since, decide

BOUNDS = Bounds(backlog_s=2.0, down_after_s=60.0, zero_after_s=300.0)
START_S = 6.0  # until a new replica takes requests


@dataclass
class Group:
    """Replicas that each do a second of work in a second; what they cannot do waits."""

    least: int = 1
    most: int = 8
    replicas: int = 1
    target: int = 1
    now_s: int = 0
    waiting_s: float = 0.0
    idle_s: float = 0.0
    since: Since = field(default_factory=Since)
    starting: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)

    def second(self, work_s: float) -> None:
        """A second in which work of so many seconds comes."""
        self.now_s += 1
        arrived = [at for at in self.starting if self.now_s - at >= START_S]
        self.replicas += len(arrived)
        self.starting = self.starting[len(arrived) :]
        done_s = min(self.waiting_s + work_s, self.replicas)
        self.waiting_s += work_s - done_s
        self.idle_s = 0.0 if done_s or self.waiting_s else self.idle_s + 1
        each = range(self.replicas)
        seen = Seen(
            now_s=self.now_s,
            running=self.replicas,
            target=self.target,
            least=self.least,
            most=self.most,
            requests=self.waiting_s,
            backlogs_s=[self.waiting_s / self.replicas for _ in each],
            loads=[done_s / self.replicas for _ in each],
            idle_s=self.idle_s,
        )
        self.target, self.since = decide(seen, BOUNDS, self.since)
        self.starting += [self.now_s] * (self.target - self.replicas - len(self.starting))
        self.replicas = min(self.replicas, self.target)
        self.targets.append(self.target)

    def run(self, seconds: int, work_s: float) -> list[int]:
        """The targets while so much work comes each second."""
        before = len(self.targets)
        for _ in range(seconds):
            self.second(work_s)
        return self.targets[before:]


def changes(targets: list[int]) -> int:
    return sum(before != after for before, after in pairwise(targets))


def test_twice_the_work_brings_a_second_replica_as_soon_as_the_backlog_passes_the_bound() -> None:
    assert Group().run(4, work_s=2.0) == [1, 1, 2, 2]


def test_a_steady_load_that_one_less_could_not_bear_keeps_its_replicas() -> None:
    group = Group()
    group.run(200, work_s=1.6)
    settled = group.run(3000, work_s=1.6)
    assert changes(settled) == 0
    assert settled[0] >= 2


def test_after_a_wave_replicas_go_one_by_one_and_not_below_the_least() -> None:
    group = Group()
    top = max(group.run(60, work_s=5.0))
    assert 5 <= top <= 8
    down = group.run(1000, work_s=0.1)
    assert down[-1] == 1
    assert sorted(down, reverse=True) == down
    falls = [second for second, (a, b) in enumerate(pairwise(down)) if b < a]
    assert all(later - earlier >= BOUNDS.down_after_s for earlier, later in pairwise(falls))


def test_of_many_replicas_a_tenth_goes_at_once_if_the_rest_can_bear_the_load() -> None:
    down = Group(most=100, replicas=100, target=100).run(1000, work_s=55.0)
    assert sorted(set(down), reverse=True) == [100, 90, 81]  # of 73 each would do 75 %
    steps = [second for second, (a, b) in enumerate(pairwise(down)) if b < a]
    assert steps[1] - steps[0] >= BOUNDS.down_after_s


def test_a_load_that_swings_faster_than_the_delay_does_not_make_it_flap() -> None:
    group = Group()
    for _ in range(30):
        group.run(20, work_s=2.5)
        group.run(20, work_s=0.2)
    settled = group.targets[200:]
    assert changes(settled) == 0


def test_a_backlog_that_grows_is_scaled_for_before_the_first_ones_have_come_up_to_twofold() -> None:
    targets = Group(most=100, replicas=4, target=4).run(int(START_S), work_s=9.0)
    assert sorted(set(targets)) == [4, 5, 8]


def test_it_does_not_start_more_while_those_it_has_asked_for_are_on_their_way() -> None:
    assert max(Group().run(int(START_S), work_s=50.0)) == 2


def test_the_most_is_never_passed_and_a_lower_most_is_obeyed() -> None:
    assert max(Group(most=3).run(300, work_s=50.0)) == 3
    assert decide(Seen(0, 5, 5, 1, 2, 0), BOUNDS, Since())[0] == 2


def test_the_last_replica_goes_only_where_none_are_allowed_and_comes_back_for_the_first_request() -> None:
    assert set(Group().run(1000, work_s=0.0)) == {1}
    targets = Group(least=0).run(299, work_s=0.0)
    assert set(targets) == {1}
    gone = Seen(now_s=300, running=1, target=1, least=0, most=2, requests=0, backlogs_s=[0], loads=[0], idle_s=300)
    assert decide(gone, BOUNDS, Since())[0] == 0
    assert decide(Seen(301, 0, 0, 0, 2, requests=0), BOUNDS, Since())[0] == 0
    assert decide(Seen(301, 0, 0, 0, 2, requests=1), BOUNDS, Since())[0] == 1


def test_replicas_that_have_not_reported_do_not_count_as_idle() -> None:
    silent = Seen(now_s=1000, running=2, target=2, least=1, most=4, requests=0, backlogs_s=[0], loads=[0])
    assert decide(silent, BOUNDS, Since(0.0)) == (2, Since())


def test_ray_s_context_is_read_and_the_state_comes_back() -> None:
    policy = BacklogPolicy(backlog_s=2.0, down_after_s=60.0, zero_after_s=300.0)

    def asked(backlog_s: float, now: float, **state: object) -> tuple[int, dict[str, object]]:
        metrics = {name: {"a": value, "b": value} for name, value in ((BACKLOG, backlog_s), (LOAD, 0.1), (IDLE, 9.0))}
        context = Context(
            current_num_replicas=2,
            target_num_replicas=2,
            total_num_requests=1.0,
            aggregated_metrics=metrics,
            capacity_adjusted_min_replicas=1,
            capacity_adjusted_max_replicas=4,
            policy_state=state,
            current_time=now,
        )
        return policy(context)

    assert asked(3.0, 10.0) == (3, {"spare_s": None})
    assert asked(0.1, 10.0) == (2, {"spare_s": 10.0})
    assert asked(0.1, 69.0, spare_s=10.0) == (2, {"spare_s": 10.0})
    assert asked(0.1, 70.0, spare_s=10.0) == (1, {"spare_s": None})


@pytest.mark.parametrize("load", [0.36, 0.5, 0.9])
def test_two_busy_replicas_stay_although_nothing_waits(load: float) -> None:
    busy = Seen(now_s=1000, running=2, target=2, least=1, most=4, requests=2, backlogs_s=[0, 0], loads=[load, load])
    assert decide(busy, BOUNDS, Since(0.0))[0] == 2
