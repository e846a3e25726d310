"""A model of a single forward pass, question answering or recommendation say, behind the `Model` contract."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from models.packing import check_packed, pack
from models.session import Session
from models.task import Cost, Event, Row, RowId


class Encoder:
    """Runs a packed graph once for all admitted rows.

    Args:
        session: inputs named after the fields of `models.packing.Packed`; float32 outputs
            whose first dimension is named `tokens` or `rows`: one entry for each.
        slots: at most so many rows in one pass.
        budget_tokens: `room` lets one pass take so many tokens; more of them do not make it faster, only later.

    Raises:
        BundleError: the graph has an input that packed rows do not have.
    """

    def __init__(self, session: Session, *, slots: int = 32, budget_tokens: int = 512) -> None:
        check_packed(session.inputs)
        self._session = session
        self._slots = slots
        self._budget_tokens = budget_tokens
        self._rows: dict[RowId, Row] = {}

    def cost(self, row: Row) -> Cost:
        """One slot, and the row's tokens."""
        return Cost(slots=1, tokens=len(row.tokens))

    def room(self) -> Cost:
        """Slots and tokens that the next pass has left."""
        admitted = sum(len(row.tokens) for row in self._rows.values())
        return Cost(slots=self._slots - len(self._rows), tokens=max(0, self._budget_tokens - admitted))

    def admit(self, rows: Mapping[RowId, Row]) -> None:
        """Keep the rows for the next pass."""
        self._rows.update(rows)

    def step(self) -> Sequence[Event]:
        """The forward pass: every admitted row gets its arrays and leaves."""
        if not self._rows:
            return []
        packed = pack(list(self._rows.values()))
        outputs = self._session.run(packed.feeds(self._session.inputs))
        per_row: dict[str, Sequence[NDArray[Any]]] = {
            name: packed.split(array) if self._session.outputs[name].shape[0] == "tokens" else list(array)
            for name, array in outputs.items()
        }
        events = [
            Event(row, arrays={name: arrays[index] for name, arrays in per_row.items()}, finish="stop")
            for index, row in enumerate(self._rows)
        ]
        self._rows.clear()
        return events

    def drop(self, ids: Collection[RowId]) -> None:
        """Forget rows whose caller has gone before their pass."""
        for row in ids:
            self._rows.pop(row, None)

    def reset(self) -> None:
        """Forget every row."""
        self._rows.clear()
