"""A model of a single forward pass, question answering or recommendation say, behind the `Model` contract."""

import time
from collections.abc import Collection, Mapping, Sequence

from models.packing import Packed, Padded, is_padded, pack, pad
from models.session import Session
from models.task import Array, Cost, Event, Row, RowId

MOST_PADDING = 1.25
"""Rows that are padded together: the longest has at most so many times the tokens of the shortest.

A graph without the input `lengths` reads padding as if it were text, so that it gets rows of one length alone.
"""

LONGEST_PASS_S = 0.05
"""A pass cannot be interrupted, and whoever comes meanwhile waits for its end; so none is made longer by taking more
rows. On a processor reading the weights once for more rows brings nothing from some hundred tokens on.
"""
MOST_TOKENS, LEAST_TOKENS = 512, 128
"""Of one pass where no number was measured: more are not faster on a core, fewer are slower."""

_FADING = 0.9
"""What a pass counts after the next one."""


class Pace:
    """How many tokens one pass should take, by what passes have taken of late."""

    def __init__(self) -> None:
        self._tokens = self._seconds = 0.0

    def measure(self, tokens: int, seconds: float) -> None:
        """A pass of so many tokens took so long."""
        self._tokens = _FADING * self._tokens + tokens
        self._seconds = _FADING * self._seconds + seconds

    @property
    def tokens(self) -> int:
        """As many as fit `LONGEST_PASS_S`, between `LEAST_TOKENS` and `MOST_TOKENS`."""
        if self._tokens * LONGEST_PASS_S >= MOST_TOKENS * self._seconds:
            return MOST_TOKENS
        return max(LEAST_TOKENS, int(self._tokens / self._seconds * LONGEST_PASS_S))


class Encoder:
    """Runs a graph once for all admitted rows.

    Args:
        session: inputs named after the fields of `models.packing.Packed`, and float32 outputs whose first dimension is
            named `tokens` or `rows`, one entry for each; or after those of `models.packing.Padded`, and outputs whose
            dimensions are named `rows` and, for one entry for each token, `width`.
        slots: at most so many rows in one pass.
        budget_tokens: `room` lets one pass take so many tokens; more of them do not make it faster, only later. None
            takes what `Pace` says.

    Raises:
        BundleError: the graph has an input that neither packed nor padded rows have.
    """

    def __init__(self, session: Session, *, slots: int = 32, budget_tokens: int | None = None) -> None:
        is_padded(session.inputs)
        self._session = session
        self._slots = slots
        self._budget_tokens = budget_tokens
        self._pace = Pace()
        self._rows: dict[RowId, Row] = {}
        self.padding_tokens = 0

    def cost(self, row: Row) -> Cost:
        """One slot, and the row's tokens."""
        return Cost(slots=1, tokens=len(row.tokens))

    def room(self) -> Cost:
        """Slots and tokens that the next pass has left."""
        budget_tokens = self._budget_tokens or self._pace.tokens
        return Cost(slots=self._slots - len(self._rows), tokens=max(0, budget_tokens - self._admitted_tokens()))

    def admit(self, rows: Mapping[RowId, Row]) -> None:
        """Keep the rows for the next pass."""
        self._rows.update(rows)

    def step(self) -> Sequence[Event]:
        """The forward pass: every admitted row gets its arrays and leaves."""
        if not self._rows:
            return []
        began = time.perf_counter()
        outputs = forward(self._session, list(self._rows.values()))
        self._pace.measure(self._admitted_tokens(), time.perf_counter() - began)
        if is_padded(self._session.inputs):
            self.padding_tokens += _padding(
                [len(row.tokens) for row in self._rows.values()], _most_padding(self._session)
            )
        events = [Event(row, arrays=arrays, finish="stop") for row, arrays in zip(self._rows, outputs, strict=True)]
        self._rows.clear()
        return events

    def drop(self, ids: Collection[RowId]) -> None:
        """Forget rows whose caller has gone before their pass."""
        for row in ids:
            self._rows.pop(row, None)

    def reset(self) -> None:
        """Forget every row."""
        self._rows.clear()

    def _admitted_tokens(self) -> int:
        return sum(len(row.tokens) for row in self._rows.values())


def forward(session: Session, rows: Sequence[Row]) -> list[dict[str, Array]]:
    """Every output for each row: [length, ...] of an output for each token, [...] of one for the row.

    A graph that pads gets rows of similar lengths at a time, so that padding stays below a fifth of what it computes.
    """
    if not is_padded(session.inputs):
        return _run(session, pack(rows)) if rows else []
    found: dict[int, dict[str, Array]] = {}
    for alike in _alike([len(row.tokens) for row in rows], _most_padding(session)):
        found.update(zip(alike, _run(session, pad([rows[index] for index in alike])), strict=True))
    return [found[index] for index in range(len(rows))]


def _run(session: Session, given: Packed | Padded) -> list[dict[str, Array]]:
    outputs = session.run(given.feeds(session.inputs))
    by_row = [given.by_row(array, session.outputs[name].shape) for name, array in outputs.items()]
    return [dict(zip(outputs, arrays, strict=True)) for arrays in zip(*by_row, strict=True)]


def _most_padding(session: Session) -> float:
    return MOST_PADDING if "lengths" in session.inputs else 1


def _alike(lengths: Sequence[int], most: float) -> list[list[int]]:
    """Indices in order of length, cut where the next is more than `most` times the first of its group."""
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if groups and lengths[index] <= most * lengths[groups[-1][0]]:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _padding(lengths: Sequence[int], most: float) -> int:
    """Tokens behind the ends of rows of these lengths, in the groups that `forward` makes of them."""
    return sum(lengths[group[-1]] * len(group) for group in _alike(lengths, most)) - sum(lengths)
