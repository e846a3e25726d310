"""A body that is wrong in a hundred thousand places is refused like any other: at once, and in few words."""

from typing import Any

import httpx
import pytest

from tests.contract.test_bad_input import problem

TIMES = 100_000


@pytest.mark.parametrize(
    ("task", "body", "pointer", "told"),
    [
        ("translation", {"inputs": [1] * TIMES}, "/inputs/0", "inputs/0 should be a valid string, got 1"),
        ("summarization", {"inputs": ["a", None] * TIMES}, "/inputs/1", "inputs/1 should be a valid string, got null"),
        ("recommendation", {"inputs": {"history": [{}] * TIMES}}, "/inputs/history/0", "history/0 should be a valid"),
        (
            "recommendation",
            {"inputs": {"history": []}, "parameters": {"exclude": [[]] * TIMES}},
            "/parameters/exclude/0",
            "parameters/exclude/0 should be a valid string",
        ),
    ],
)
def test_a_list_is_refused_for_its_first_fault(
    http: httpx.Client, task: str, body: dict[str, Any], pointer: str, told: str
) -> None:
    found = problem(http.post(f"/v1/{task}", json=body), 422, told)
    assert [error["pointer"] for error in found["errors"]] == [pointer]


@pytest.mark.parametrize("place", [(), ("parameters",), ("parameters", "generate_parameters")])
def test_unknown_fields_without_number_are_only_counted(http: httpx.Client, place: tuple[str, ...]) -> None:
    body: dict[str, Any] = {"inputs": "a"}
    inner = body
    for name in place:
        inner = inner.setdefault(name, {})
    inner |= {f"f{number}": 0 for number in range(TIMES)}
    response = http.post("/v1/translation", json=body)
    problem(response, 422, f"the body has {TIMES} wrong or unknown fields, at most 100 are told one by one")
    assert len(response.content) < 1_000


@pytest.mark.parametrize("method", [[[]], [{}], [["attention"]], [None], "all", {}])
def test_a_method_that_is_none(http: httpx.Client, method: Any) -> None:
    body = {"inputs": "a", "explain": {"method": method}}
    problem(http.post("/v1/translation", json=body), 422, "explain/method must be 'attention', 'occlusion' or a list")


def test_a_field_that_is_called_body_is_told_by_its_name(http: httpx.Client) -> None:
    body = {"inputs": "a", "body": 1, "parameters": {"body": 1}}
    found = problem(http.post("/v1/translation", json=body), 422, "parameters/body is not a field", "; body is not")
    assert {error["pointer"] for error in found["errors"]} == {"/body", "/parameters/body"}
