"""Many requests through one model in the calling thread, for measuring; the service's engine serves many callers."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from models.load import Loaded
from models.task import Array, FinishReason, Model, Output, Row

AT_ONCE = 512


def answer_all(loaded: Loaded, requests: Iterable[Any]) -> Iterator[Any]:
    """The responses to the requests, in their order; `AT_ONCE` requests share the model, shortest rows first.

    Raises:
        InvalidInput: from a request.
    """
    stream = iter(requests)
    while together := list(islice(stream, AT_ONCE)):
        solutions = [loaded.task.solve(request) for request in together]
        responses: dict[int, Any] = {}
        sent: dict[int, Sequence[Output] | None] = dict.fromkeys(range(len(solutions)))
        while sent:
            asked: dict[int, Sequence[Row]] = {}
            for index, outputs in sent.items():
                try:
                    asked[index] = next(solutions[index]) if outputs is None else solutions[index].send(outputs)
                except StopIteration as stop:
                    responses[index] = stop.value
            computed = iter(_compute(loaded, [row for rows in asked.values() for row in rows]))
            sent = {index: list(islice(computed, len(rows))) for index, rows in asked.items()}
        yield from (responses[index] for index in range(len(solutions)))


def _compute(loaded: Loaded, rows: Sequence[Row]) -> list[Output]:
    """Of rows that answer and rows that explain alike, in their order."""
    outputs: dict[int, Output] = {}
    for model, answers in ((loaded.model, True), (loaded.explainer, False)):
        own = [index for index, row in enumerate(rows) if (row.purpose == "answer") == answers]
        outputs.update(zip(own, compute(model, [rows[index] for index in own]), strict=True))
    return [outputs[index] for index in range(len(rows))]


def compute(model: Model, rows: Sequence[Row]) -> list[Output]:
    """The outputs of the rows, in their order; rows join as others leave."""
    waiting = deque(sorted(range(len(rows)), key=lambda index: len(rows[index].tokens)))
    tokens: list[list[int]] = [[] for _ in rows]
    arrays: list[dict[str, Array]] = [{} for _ in rows]
    finish: dict[int, FinishReason] = {}
    while len(finish) < len(rows):
        joining = _joining(model, rows, waiting)
        if joining:
            model.admit(joining)
        for event in model.step():
            tokens[event.row].extend(event.tokens)
            arrays[event.row].update(event.arrays)
            if event.finish is not None:
                finish[event.row] = event.finish
    return [Output(tuple(tokens[index]), arrays[index], finish[index]) for index in range(len(rows))]


def _joining(model: Model, rows: Sequence[Row], waiting: deque[int]) -> dict[int, Row]:
    room = model.room()
    slots, budget_tokens = room.slots, room.tokens
    joining: dict[int, Row] = {}
    while waiting:
        cost = model.cost(rows[waiting[0]])
        fits = cost.slots <= slots and (cost.tokens <= budget_tokens or not joining)
        if not fits:
            break
        slots -= cost.slots
        budget_tokens -= cost.tokens
        index = waiting.popleft()
        joining[index] = rows[index]
    return joining
