"""Explanations over real HTTP: the answer stays the same, offsets lead into the caller's text, refusals name why."""

import base64
from typing import Any

import httpx
import numpy as np
import pytest

from tests.contract.test_answers import ABSTRACT, CONTEXT

BOTH = ["attention", "occlusion"]
TEXT = "  - I don't know where she lives.\n\nCan you help me?\n"
REQUESTS: dict[str, dict[str, Any]] = {
    "translation": {"inputs": [TEXT, "Thank you very much."]},
    "summarization": {"inputs": f"\n {ABSTRACT}"},
    "question-answering": {"inputs": {"question": "Where was Marie Curie born?", "context": CONTEXT}},
    "recommendation": {"inputs": {"history": ["22423", "85123A", "21733"]}, "parameters": {"top_k": 2}},
}


def ask(http: httpx.Client, task: str, **fields: Any) -> list[dict[str, Any]]:
    response = http.post(f"/v1/{task}", json=REQUESTS[task] | fields)
    assert response.status_code == 200, response.text
    answers = response.json()
    return answers if isinstance(answers, list) else [answers]


def field(request: Any, pointer: str) -> str:
    for part in pointer.split("/")[1:]:
        request = request[int(part) if isinstance(request, list) else part]
    assert isinstance(request, str)
    return request


def units(found: Any) -> list[dict[str, Any]]:
    """Every unit that an explanation names."""
    if isinstance(found, list):
        return [unit for part in found for unit in units(part)]
    if not isinstance(found, dict):
        return []
    return [found] if "text" in found else [unit for part in found.values() for unit in units(part)]


@pytest.mark.parametrize("task", REQUESTS)
def test_an_explanation_belongs_to_the_answer_and_changes_nothing(http: httpx.Client, task: str) -> None:
    plain, explained = ask(http, task), ask(http, task, explain={"method": BOTH})
    for answer, same in zip(explained, plain, strict=True):
        explanation = answer.pop("explanation")
        assert answer == same
        text = next(answer[name] for name in ("translation_text", "summary_text", "answer", "title") if name in answer)
        for unit in units(explanation):
            if "start" in unit:
                whole = field(REQUESTS[task], unit["pointer"]) if "pointer" in unit else text
                found = whole[unit["start"] : unit["end"]]
                assert found == unit["text"]
                assert found.strip() == found != ""
        for part in explanation["parts"]:
            rows, columns = part["attention"]["weights"]["shape"]
            assert (rows, columns) == (len(part["output"]), len(part["source"]))
            assert part["attention"]["rollout"]["shape"] == [rows, columns]
            assert np.shape(part["attention"]["weights"]["values"]) == (rows, columns)
            for name in ("weights", "rollout"):
                assert np.sum(part["attention"][name]["values"], 1) == pytest.approx(1, abs=0.01)
            assert len(part["occlusion"]["changes"]) == len(part["occlusion"]["units"]) > 0
            assert part["occlusion"]["log_probability"] <= 0
            assert -1 <= part["rank_correlation"] <= 1
            if task != "translation":
                assert any(change > 0 for change in part["occlusion"]["changes"])


def test_words_of_a_translation_lead_to_their_translations(http: httpx.Client) -> None:
    first, second = ask(http, "translation", explain={"method": BOTH})
    assert len(first["explanation"]["parts"]) == 2
    (part,) = second["explanation"]["parts"]
    assert second["translation_text"].startswith("Merci")
    assert [unit["text"] for unit in part["occlusion"]["units"]] == ["Thank", "you", "very", "much", "."]
    merci = next(index for index, unit in enumerate(part["output"]) if unit["text"] == "Merci")
    assert np.argmax(part["occlusion"]["weights"]["values"][merci]) == 0
    assert part["output"][merci]["start"] == 0


def test_attention_between_question_and_context_goes_the_way_that_its_name_says(http: httpx.Client) -> None:
    (answer,) = ask(http, "question-answering", explain={"method": "attention"})
    (part,) = answer["explanation"]["parts"]
    question, context = (
        [index for index, unit in enumerate(part["source"]) if unit.get("pointer") == f"/inputs/{name}"]
        for name in ("question", "context")
    )
    assert 0 < len(question) < len(context)
    weights, forth, back = (
        np.array(part["attention"][name]["values"])
        for name in ("weights", "question_to_context", "context_to_question")
    )
    assert forth.shape == (len(question), len(context))
    assert back.shape == (len(context), len(question))
    (first,) = [row for row, index in enumerate(context) if part["source"][index]["start"] == answer["start"]]
    assert back[first] == pytest.approx(weights[0][question])


def test_an_item_counts_what_its_recommendation_loses_without_it(http: httpx.Client) -> None:
    history = REQUESTS["recommendation"]["inputs"]["history"]
    answers = ask(http, "recommendation", explain={"method": BOTH})
    explained = [answer["explanation"]["parts"][0] for answer in answers]
    for part, answer in zip(explained, answers, strict=True):
        assert part["occlusion"]["log_probability"] == pytest.approx(np.log(answer["score"]))
        (shares,) = part["attention"]["weights"]["values"]
        assert min(shares) > 0, "an item sees those before it, the last one alone sees all"
    for place, item in enumerate(history):
        without = {"history": history[:place] + history[place + 1 :]}
        found = ask(http, "recommendation", inputs=without, parameters={"top_k": 100, "exclude": [item]})
        scores = {other["item"]: other["score"] for other in found}
        for part, answer in zip(explained, answers, strict=True):
            fall = part["occlusion"]["log_probability"] - np.log(scores[answer["item"]])
            assert part["occlusion"]["changes"][place] == pytest.approx(fall, abs=1e-4)


def test_weights_come_as_asked(http: httpx.Client) -> None:
    request = {"inputs": "Thank you.", "explain": {"method": "attention", "heads": "each"}}
    (answer,) = http.post("/v1/translation", json=request).json()
    (part,) = answer["explanation"]["parts"]
    assert "occlusion" not in part
    assert "rank_correlation" not in part
    whole, heads = (np.array(part["attention"][name]["values"]) for name in ("weights", "heads"))
    assert heads.mean((0, 1)) == pytest.approx(whole, abs=1e-5)
    request["explain"] = {"method": "attention", "encoding": "base64", "top_k": 2}
    (answer,) = http.post("/v1/translation", json=request).json()
    weights = answer["explanation"]["parts"][0]["attention"]["weights"]
    packed = np.frombuffer(base64.b64decode(weights["base64"]), "<f2").reshape(weights["shape"])
    assert packed == pytest.approx(-np.sort(-whole, 1)[:, :2], abs=1e-3)
    assert np.take_along_axis(whole, np.array(weights["indices"]), 1) == pytest.approx(packed, abs=1e-3)


@pytest.mark.parametrize(
    ("status", "task", "fields", "detail"),
    [
        (422, "translation", {"explain": {"method": "saliency"}}, "must be 'attention', 'occlusion' or a list of both"),
        (422, "translation", {"inputs": "Good.", "explain": {"method": BOTH}, "stream": True}, "stream: false"),
        (422, "translation", {"explain": {"method": "occlusion", "heads": "each"}}, "explain/heads needs the method"),
        (
            413,
            "summarization",
            {"inputs": [ABSTRACT] * 30, "explain": {"method": "attention"}},
            "explain by attention reads at most 1024 tokens, got",
        ),
        (
            413,
            "summarization",
            {"inputs": [ABSTRACT] * 10, "explain": {"method": "attention", "heads": "each"}},
            "explain by attention reads at most 256 tokens with heads: each, got",
        ),
        (
            413,
            "summarization",
            {"inputs": [ABSTRACT] * 60, "explain": {"method": "occlusion"}},
            "explain by occlusion reads at most 65536 tokens, leaving out",
        ),
    ],
)
def test_what_cannot_be_explained_is_refused(
    http: httpx.Client, status: int, task: str, fields: dict[str, Any], detail: str
) -> None:
    response = http.post(f"/v1/{task}", json=REQUESTS[task] | fields)
    assert (response.status_code, detail in response.json()["detail"]) == (status, True), response.text
    assert response.json()["errors"][0]["pointer"].startswith("/explain")
