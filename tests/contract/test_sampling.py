"""Sampled answers over real HTTP: each row draws for itself, and a seed says what it draws."""

from typing import Any

import httpx
import pytest

from tests.contract.test_stream import events

TEXT = "I don't know where she lives."


def sampled(http: httpx.Client, inputs: Any, route: str = "translation", **settings: Any) -> list[str]:
    body = {"inputs": inputs, "parameters": {"generate_parameters": {"do_sample": True, **settings}}}
    response = http.post(f"/v1/{route}", json=body)
    assert response.status_code == 200, response.text
    return [answer["translation_text" if route == "translation" else "summary_text"] for answer in response.json()]


def test_the_same_text_several_times_is_drawn_several_times(http: httpx.Client) -> None:
    answers = sampled(http, [TEXT] * 4, seed=3)
    assert len(set(answers)) > 1
    assert sampled(http, [TEXT] * 4, seed=3) == answers
    assert sampled(http, TEXT, seed=3) == answers[:1]


def test_the_same_sentence_several_times_is_drawn_several_times(http: httpx.Client) -> None:
    text = "\n".join([TEXT] * 4)
    (answer,) = sampled(http, text, seed=3)
    assert len(set(answer.split("\n"))) > 1
    assert answer.split("\n") == sampled(http, [TEXT] * 4, seed=3)
    body = {"inputs": text, "parameters": {"generate_parameters": {"do_sample": True, "seed": 3}}}
    told = [data for name, data in events(http, "/v1/translation", body) if name == "message"]
    assert told[-1]["generated_text"] == answer


@pytest.mark.parametrize("temperature", [5e-324, 1e-308, 1e-9])
def test_next_to_no_temperature_takes_the_likeliest(http: httpx.Client, temperature: float) -> None:
    likeliest = http.post("/v1/translation", json={"inputs": TEXT}).json()[0]["translation_text"]
    assert sampled(http, TEXT, temperature=temperature) == [likeliest]
