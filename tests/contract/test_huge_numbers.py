"""Numbers that no machine has a word for, in every parameter that takes a whole number."""

from collections.abc import Iterator
from typing import Any, get_args

import httpx
import pytest
from pydantic import BaseModel

from models.tasks import TASKS

ANSWERED = {200, 413, 422}


def whole_numbers(model: type[BaseModel], above: str = "") -> Iterator[str]:
    """The pointer of every field that takes one."""
    for name, field in model.model_fields.items():
        for kind in get_args(field.annotation) or (field.annotation,):
            if kind is int:
                yield f"{above}/{name}"
            elif isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from whole_numbers(kind, f"{above}/{name}")


FIELDS = [(task, pointer) for task, known in TASKS.items() for pointer in whole_numbers(known.request_type)]


def test_every_task_has_some() -> None:
    assert {task for task, _ in FIELDS} == set(TASKS)
    assert ("question-answering", "/parameters/max_question_len") in FIELDS


@pytest.mark.parametrize("zeros", [30, 4000])
@pytest.mark.parametrize(("task", "pointer"), FIELDS)
def test_a_huge_number_is_followed_or_refused(http: httpx.Client, task: str, pointer: str, zeros: int) -> None:
    card = next(card for card in http.get("/v1/models").json() if card["task"] == task)
    for number in (10**zeros, -(10**zeros)):
        body: dict[str, Any] = {"inputs": card["example"]["inputs"]}
        place = body
        *above, name = pointer.split("/")[1:]
        for each in above:
            place = place.setdefault(each, {"method": ["attention"]} if each == "explain" else {})
        place[name] = number
        response = http.post(f"/v1/{task}", json=body)
        assert response.status_code in ANSWERED, response.text
