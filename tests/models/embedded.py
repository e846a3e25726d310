"""The embedded models, as tests use them: loaded once, and driven as the engine drives them."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import models
from models.bundle import Bundle, open_bundle
from models.session import Session, open_session
from models.task import Array, Event, Model, Row

BUNDLES = Path(models.__file__).parent / "bundles"
TRANSLATION, SUMMARIZATION = BUNDLES / "translation", BUNDLES / "summarization"
QUESTION_ANSWERING, RECOMMENDATION = BUNDLES / "question-answering", BUNDLES / "recommendation"


@cache
def opened(folder: Path) -> Bundle:
    return open_bundle(folder)


@cache
def session(folder: Path, role: str) -> Session:
    return open_session(opened(folder), "int8", role)  # type: ignore[arg-type]


class Collected:
    """Tokens, arrays and finish reasons of rows, gathered from events."""

    def __init__(self) -> None:
        self.tokens: dict[int, list[int]] = {}
        self.arrays: dict[int, Mapping[str, Array]] = {}
        self.finish: dict[int, str] = {}

    def take(self, events: Sequence[Event]) -> None:
        for event in events:
            assert event.row not in self.finish, "an event after the last one"
            self.tokens.setdefault(event.row, []).extend(event.tokens)
            self.arrays[event.row] = event.arrays
            if event.finish is not None:
                self.finish[event.row] = event.finish


def run(model: Model, rows: Mapping[int, Row]) -> Collected:
    """Admit all rows at once and step until none is left."""
    collected = Collected()
    model.admit(rows)
    while events := model.step():
        collected.take(events)
    return collected
