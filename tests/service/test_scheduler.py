"""The scheduler by its promises: nothing lost, nothing twice, budget kept, no starvation, callers take turns."""

from collections import deque
from collections.abc import Iterator
from itertools import count, islice

from hypothesis import given
from hypothesis import strategies as st

from models.task import Cost
from service.scheduler import (
    ALIKE_SHARE,
    ALIKE_TOKENS,
    LOOK_AHEAD,
    MAX_PASSED_OVER,
    Plan,
    Turns,
    Waiting,
    plan,
)

SLOTS = 8
costs = st.builds(Cost, slots=st.integers(1, SLOTS), tokens=st.integers(1, 120))
rooms = st.builds(Cost, slots=st.integers(0, SLOTS), tokens=st.integers(0, 100))
queues = st.lists(st.tuples(costs, st.integers(0, MAX_PASSED_OVER)), max_size=30).map(
    lambda rows: [Waiting(id_, 0, cost, passed) for id_, (cost, passed) in enumerate(rows)]
)


def short(id_: int, request: int = 0, *, tokens: int = 10, slots: int = 1) -> Waiting:
    return Waiting(id_, request, Cost(slots, tokens))


def ids(rows: Plan) -> list[int]:
    return [row.id for row in rows.join]


@given(queues, rooms)
def test_a_plan_keeps_the_budget_and_a_longer_row_goes_alone(waiting: list[Waiting], room: Cost) -> None:
    join = plan(waiting, room).join
    assert sum(row.cost.slots for row in join) <= room.slots
    assert len(join) == 1 or sum(row.cost.tokens for row in join) <= room.tokens


@given(queues, rooms)
def test_a_plan_takes_each_row_once_in_the_order_of_turns(waiting: list[Waiting], room: Cost) -> None:
    chosen = ids(plan(waiting, room))
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= {row.id for row in waiting}


@given(queues, rooms)
def test_the_first_row_joins_whenever_its_slots_are_free(waiting: list[Waiting], room: Cost) -> None:
    planned = plan(waiting, room)
    if waiting and waiting[0].cost.slots <= room.slots:
        assert planned.join[0] is waiting[0]


@given(queues, rooms)
def test_passed_over_are_exactly_the_rows_in_front_that_stay_and_none_of_them_was_overdue(
    waiting: list[Waiting], room: Cost
) -> None:
    planned = plan(waiting, room)
    chosen = set(ids(planned))
    in_front = [row for row in waiting if row.id < max(chosen, default=0) and row.id not in chosen]
    assert list(planned.passed_over) == in_front
    assert all(row.passed_over < MAX_PASSED_OVER for row in in_front)


@given(queues, rooms)
def test_rows_that_join_are_as_long_as_the_first_unless_they_are_overdue(waiting: list[Waiting], room: Cost) -> None:
    join = plan(waiting, room).join
    for row in join[1:]:
        first = join[0].cost.tokens
        assert row.passed_over == MAX_PASSED_OVER or abs(row.cost.tokens - first) <= max(
            ALIKE_TOKENS, ALIKE_SHARE * first
        )


def test_the_room_is_filled_with_like_rows() -> None:
    waiting = [
        short(0, tokens=100),
        short(1, tokens=10),
        short(2, tokens=90),
        short(3, tokens=125),
        short(4, tokens=126),
    ]
    planned = plan(waiting, Cost(slots=8, tokens=400))
    assert ids(planned) == [0, 2, 3]
    assert [row.id for row in planned.passed_over] == [1]


def test_an_overdue_row_that_does_not_fit_holds_up_all_behind_it_but_none_in_front() -> None:
    overdue = Waiting(1, 0, Cost(slots=4, tokens=10), MAX_PASSED_OVER)
    assert ids(plan([short(0), overdue, short(2)], Cost(slots=4, tokens=100))) == [0]
    assert ids(plan([short(0), overdue, short(2)], Cost(slots=6, tokens=100))) == [0, 1, 2]


def test_an_overdue_row_joins_whatever_its_length() -> None:
    overdue = Waiting(1, 0, Cost(slots=1, tokens=90), MAX_PASSED_OVER)
    assert ids(plan([short(0), overdue, short(2), short(3, tokens=80)], Cost(slots=4, tokens=200))) == [0, 1, 2]


def test_a_row_longer_than_the_room_joins_alone_and_is_passed_over_until_it_is_first() -> None:
    long = short(1, tokens=500)
    assert ids(plan([short(0), long, short(2)], Cost(slots=8, tokens=100))) == [0, 2]
    assert ids(plan([long, short(2)], Cost(slots=8, tokens=100))) == [1]


def test_planning_reads_no_further_than_needed() -> None:
    read = count()

    def endless() -> Iterator[Waiting]:
        while True:
            yield short(next(read))

    assert len(plan(endless(), Cost(slots=3, tokens=1000)).join) == 3
    assert next(read) <= 4


arrivals = st.lists(
    st.tuples(st.integers(0, 6), st.lists(st.tuples(costs, st.integers(1, 9)), min_size=1, max_size=12)), max_size=8
)


@given(arrivals, st.integers(1, 100))
def test_every_row_runs_exactly_once_within_the_slots_whoever_comes_when(
    requests: list[tuple[int, list[tuple[Cost, int]]]], budget: int
) -> None:
    """A whole life: requests come, their rows run for different times, and all end."""
    turns, row_ids = Turns(), count()
    steps_of: dict[int, int] = {}
    running: dict[int, tuple[int, int]] = {}  # steps left, slots
    joined: list[int] = []
    coming = deque(sorted(requests, key=lambda request: request[0]))
    for tick in count():
        while coming and coming[0][0] <= tick:
            rows = [(next(row_ids), cost, steps) for cost, steps in coming.popleft()[1]]
            steps_of.update({id_: steps for id_, _, steps in rows})
            turns.add(len(coming), [Waiting(id_, len(coming), cost) for id_, cost, _ in rows])
        if not (coming or turns or running):
            break
        used = sum(slots for _, slots in running.values())
        planned = plan(islice(turns, LOOK_AHEAD), Cost(SLOTS - used, budget))
        turns.take(planned)
        assert planned.join or running or not turns, "nothing runs although something waits"
        assert all(row.passed_over <= MAX_PASSED_OVER for row in turns)
        joined += ids(planned)
        running |= {row.id: (steps_of[row.id], row.cost.slots) for row in planned.join}
        assert sum(slots for _, slots in running.values()) <= SLOTS
        running = {id_: (left - 1, slots) for id_, (left, slots) in running.items() if left > 1}
    assert sorted(joined) == sorted(steps_of)


def test_a_row_that_needs_every_slot_does_not_starve_among_an_endless_stream_of_small_ones() -> None:
    turns, row_ids = Turns(), count(1)
    turns.add(0, [short(0, 0, slots=SLOTS)])
    busy: deque[int] = deque([1] * SLOTS, SLOTS)  # one slot becomes free in each iteration
    for id_ in islice(row_ids, 100):
        turns.add(id_, [short(id_, id_)])
        busy.popleft()
        planned = plan(islice(turns, LOOK_AHEAD), Cost(SLOTS - sum(busy), 1000))
        turns.take(planned)
        if 0 in ids(planned):
            break
        busy.append(len(planned.join))
    assert id_ == MAX_PASSED_OVER + SLOTS


def test_a_row_of_odd_length_does_not_starve_among_an_endless_stream_of_like_ones() -> None:
    turns, row_ids = Turns(), count(2)
    turns.add(0, [short(0, 0)])
    turns.add(1, [short(1, 1, tokens=90)])
    for first in islice(row_ids, 0, 400, 4):
        turns.add(0, [short(id_, 0) for id_ in range(first, first + 4)])
        planned = plan(islice(turns, LOOK_AHEAD), Cost(4, 100))
        turns.take(planned)
        if 1 in ids(planned):
            break
    assert first <= 2 + 4 * MAX_PASSED_OVER


def test_one_row_waits_for_one_row_of_a_caller_with_ten_thousand() -> None:
    turns = Turns()
    turns.add(0, [short(id_, 0) for id_ in range(10_000)])
    turns.add(1, [short(10_000, 1)])
    assert ids(plan(islice(turns, LOOK_AHEAD), Cost(2, 100))) == [0, 10_000]


@given(st.lists(st.integers(1, 40), min_size=2, max_size=5), st.integers(1, 7))
def test_requests_get_equal_shares_while_they_wait(sizes: list[int], slots: int) -> None:
    turns, first = Turns(), 0
    for request, size in enumerate(sizes):
        turns.add(request, [short(id_, request) for id_ in range(first, first + size)])
        first += size
    served = [0] * len(sizes)
    while turns:
        planned = plan(islice(turns, LOOK_AHEAD), Cost(slots, 10_000))
        turns.take(planned)
        for row in planned.join:
            served[row.request] += 1
        waiting = {row.request for row in turns}
        assert max(served) - min((served[request] for request in waiting), default=max(served)) <= 1


def test_served_requests_go_behind_the_others_and_rows_keep_their_order() -> None:
    turns = Turns()
    turns.add(7, [short(0, 7), short(1, 7), short(2, 7)])
    turns.add(8, [short(3, 8), short(4, 8)])
    turns.add(9, [short(5, 9)])
    assert [row.id for row in turns] == [0, 3, 5, 1, 4, 2]
    turns.take(plan(turns, Cost(1, 100)))
    assert [row.id for row in turns] == [3, 5, 1, 4, 2]


def test_rows_that_stay_keep_their_order_and_are_counted() -> None:
    turns = Turns()
    turns.add(1, [short(id_, 1, tokens=tokens) for id_, tokens in enumerate((10, 100, 50, 10, 70))])
    turns.take(plan(turns, Cost(2, 1000)))
    assert [(row.id, row.passed_over) for row in turns] == [(1, 1), (2, 1), (4, 0)]


def test_a_discarded_request_leaves_nothing_behind() -> None:
    turns = Turns()
    turns.add(1, [short(0, 1), short(1, 1)])
    turns.add(2, [short(2, 2)])
    assert [row.id for row in turns.discard(1)] == [0, 1]
    assert [row.id for row in turns] == [2]
    assert not turns.discard(1)
    turns.discard(2)
    assert not turns
