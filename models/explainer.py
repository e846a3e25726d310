"""A model's second door, for explanations: it scores given outputs and shows attention, beside the rows that answer."""

import threading
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from models.bundle import GenerationDefaults
from models.packing import pack
from models.session import Session
from models.task import Array, Cost, Event, Model, Row, RowId


class Explainer:
    """Takes rows of the purposes `score` and `attention`, behind the `Model` contract.

    Args:
        scorer: computes rows of the purpose `score`.
        open_attention: loads the graph `explain`; None where the bundle has none. It is loaded when first asked for.
        generation: what the decoder starts from; None where nothing decodes.
    """

    def __init__(
        self, scorer: Model, open_attention: Callable[[], Session] | None, generation: GenerationDefaults | None
    ) -> None:
        self._scorer, self._open, self._generation = scorer, open_attention, generation
        self._attention: Session | None = None
        self.padding_tokens = 0
        self._opening = threading.Lock()
        self._shown: dict[RowId, Row] = {}

    def load(self) -> None:
        """Load the graph of attention, if there is one and it is not loaded; any thread may do it before rows come.

        Raises:
            BundleError: ONNX Runtime refuses it.
        """
        with self._opening:
            if self._attention is None and self._open is not None:
                self._attention = self._open()

    def cost(self, row: Row) -> Cost:
        """A slot, and the tokens that are read."""
        return self._scorer.cost(row)

    def room(self) -> Cost:
        """What the scorer has left."""
        return self._scorer.room()

    def admit(self, rows: Mapping[RowId, Row]) -> None:
        """Keep what asks for attention, and hand the others to the scorer."""
        scored = {id_: row for id_, row in rows.items() if row.purpose != "attention"}
        self._shown.update({id_: row for id_, row in rows.items() if id_ not in scored})
        if scored:
            self._scorer.admit(scored)

    def step(self) -> Sequence[Event]:
        """The attention of a single row, or else a step of the scorer: little, so that others have their turn."""
        if not self._shown:
            return self._scorer.step()
        id_, row = next(iter(self._shown.items()))
        self.load()
        event = Event(id_, arrays=self._attend(row), finish="stop")
        del self._shown[id_]
        return [event]

    def drop(self, ids: Collection[RowId]) -> None:
        """Forget rows whose caller has gone."""
        for id_ in ids:
            self._shown.pop(id_, None)
        self._scorer.drop(ids)

    def reset(self) -> None:
        """Forget every row."""
        self._shown.clear()
        self._scorer.reset()

    def _attend(self, row: Row) -> dict[str, Array]:
        session, length = self._attention, len(row.tokens)
        if session is None:
            raise ValueError("this bundle has no graph that shows attention")
        feeds = pack([row]).feeds([name for name in session.inputs if name != "target"])
        if "target" in session.inputs:
            if row.target is None or self._generation is None:
                raise ValueError("a row without a target came to an encoder-decoder")
            feeds["target"] = np.concatenate([[self._generation.decoder_start_token_id], row.target[:-1]])
        found = session.run(feeds)
        found["encoder_attention"] = found["encoder_attention"][..., :length, :length]
        return found
