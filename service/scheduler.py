"""Which waiting rows join the next iteration: pure, so that property tests can show that it is fair."""

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from models.task import Cost, RowId

# A row may be left out of this many iterations in which a row behind it joins; then nothing passes it. At 20 to 50 ms
# an iteration that is less than half a second, and long enough for several like rows to gather.
MAX_PASSED_OVER = 8

# Rows join together when their lengths differ from the first one's by at most a quarter. What a graph pads (a packed
# one only its attention) is then at most 1 - 0.75 / 1.25 = 40 % padding, and a fifth when the lengths spread evenly.
# Between short rows a difference of up to 8 tokens does not matter: reading the weights once more would cost more.
ALIKE_SHARE = 0.25
ALIKE_TOKENS = 8

# So many rows are looked at in one iteration, however many wait: several times what a model holds, so that like rows
# are found, and few enough that planning takes well under a millisecond.
LOOK_AHEAD = 256


@dataclass(frozen=True, slots=True)
class Waiting:
    """A row that waits, the request that it belongs to, and how often another has been taken before its turn."""

    id: RowId
    request: int
    cost: Cost
    passed_over: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """The rows that join the next iteration, and those whose turn was before one of these and that stay."""

    join: Sequence[Waiting] = ()
    passed_over: Sequence[Waiting] = ()


def plan(waiting: Iterable[Waiting], room: Cost) -> Plan:
    """Fill the room with rows of similar length, in the order of their turns.

    A row longer than `room.tokens` goes alone. A row that has been passed over `MAX_PASSED_OVER` times joins whatever
    its length, and while it does not fit, nothing behind it joins.

    Args:
        waiting: in the order of turns; read only as far as needed.
        room: what the model takes now.
    """
    slots, tokens = room.slots, room.tokens
    join: list[Waiting] = []
    passed_over: list[Waiting] = []
    skipped: list[Waiting] = []
    for row in waiting:
        cost = row.cost
        overdue = row.passed_over >= MAX_PASSED_OVER
        alone = cost.tokens > room.tokens
        fits = cost.slots <= slots and (not join if alone else cost.tokens <= tokens)
        if fits and (overdue or not join or _alike(cost.tokens, join[0].cost.tokens)):
            join.append(row)
            passed_over += skipped
            skipped.clear()
            slots -= cost.slots
            tokens -= cost.tokens  # below 0 after a row that goes alone
        elif overdue or slots <= 0:
            break
        else:
            skipped.append(row)
    return Plan(join, passed_over)


def _alike(length: int, first: int) -> bool:
    return abs(length - first) <= max(ALIKE_TOKENS, ALIKE_SHARE * first)


class Turns:
    """What waits, a queue for each request; the requests take turns, one row each, in the order in which they came.

    So 10,000 rows of one caller delay one row of another by one row. The time of every method grows with the rows
    that it touches, not with those that wait.
    """

    def __init__(self) -> None:
        self._requests: OrderedDict[int, deque[Waiting]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._requests)

    def __iter__(self) -> Iterator[Waiting]:
        """All rows in the order of turns, lazily."""
        later: deque[Iterator[Waiting]] = deque()
        for rows in self._requests.values():
            turn = iter(rows)
            yield next(turn)
            later.append(turn)
        while later:
            turn = later.popleft()
            for row in turn:
                yield row
                later.append(turn)
                break

    def add(self, request: int, rows: Iterable[Waiting]) -> None:
        """Rows of a request begin to wait, behind those of the same request that wait already."""
        queue = self._requests.setdefault(request, deque())
        queue.extend(rows)
        if not queue:
            del self._requests[request]

    def take(self, planned: Plan) -> None:
        """Remove what joins, count who was passed over, and put the requests that were served behind the others."""
        stay: dict[int, list[Waiting]] = {row.request: [] for row in planned.join}
        for row in planned.passed_over:
            stay.setdefault(row.request, []).append(Waiting(row.id, row.request, row.cost, row.passed_over + 1))
        # All rows in front of the last one that joins either join or are passed over: both are at the front.
        for row in (*planned.join, *planned.passed_over):
            self._requests[row.request].popleft()
        for request, rows in stay.items():
            self._requests[request].extendleft(reversed(rows))
        for row in planned.join:
            if self._requests.get(row.request):
                self._requests.move_to_end(row.request)
            else:
                self._requests.pop(row.request, None)

    def discard(self, request: int) -> Sequence[Waiting]:
        """Remove all rows of a request; none when it has none."""
        return self._requests.pop(request, ())
