"""The four tasks answer over real HTTP, in the shapes of the Hugging Face Inference API."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from huggingface_hub import InferenceClient

from tests.serving import Service

ENGLISH = "I don't know where she lives."
CONTEXT = (
    "Marie Curie was born in Warsaw in 1867. She moved to Paris in 1891 to study physics at the Sorbonne. "
    "In 1903 she shared the Nobel Prize in Physics with Pierre Curie and Henri Becquerel."
)
ABSTRACT = (
    "We present a new method for training neural networks on small data sets. The method adds noise to the inputs and "
    "averages the weights of several networks. Experiments on image classification show that it reduces the error."
)


def post(http: httpx.Client, route: str, inputs: Any, **parameters: Any) -> Any:
    response = http.post(route, json={"inputs": inputs, "parameters": parameters})
    assert response.status_code == 200, response.text
    return response.json()


def with_beams(text: str, num_beams: int) -> dict[str, Any]:
    return {"inputs": text, "parameters": {"generate_parameters": {"num_beams": num_beams}}}


def test_translation_of_one_text_is_a_list_of_one(http: httpx.Client) -> None:
    (answer,) = post(http, "/v1/translation", ENGLISH)
    assert list(answer) == ["translation_text"]
    assert "sais" in answer["translation_text"].lower()


def test_translation_of_a_list_answers_in_order(http: httpx.Client) -> None:
    texts = ["Good morning.", ENGLISH, "Thank you."]
    together = post(http, "/v1/translation", texts)
    assert together == [post(http, "/v1/translation", text)[0] for text in texts]
    assert len({answer["translation_text"] for answer in together}) == 3


def test_translation_keeps_the_layout(http: httpx.Client) -> None:
    text = f"  - {ENGLISH}\n\n\t1. Thank you.  Good morning.\n***\n"
    alone = [
        post(http, "/v1/translation", sentence)[0]["translation_text"]
        for sentence in (ENGLISH, "Thank you.", "Good morning.")
    ]
    (answer,) = post(http, "/v1/translation", text)
    assert answer["translation_text"] == f"  - {alone[0]}\n\n\t1. {alone[1]}  {alone[2]}\n***\n"


def test_text_without_words_is_passed_through(http: httpx.Client) -> None:
    assert post(http, "/v1/translation", " 12 - 13 ✓\n") == [{"translation_text": " 12 - 13 ✓\n"}]


def test_a_sentence_over_the_limit_is_translated_in_parts(http: httpx.Client) -> None:
    card = next(card for card in http.get("/v1/models").json() if card["task"] == "translation")
    text = " ".join(["she lives in a house and"] * card["limits"]["max_tokens"])
    (answer,) = post(http, "/v1/translation", text)
    assert len(answer["translation_text"].split()) > card["limits"]["max_tokens"]
    cut = post(http, "/v1/translation", text, truncation="longest_first")[0]["translation_text"]
    assert answer["translation_text"].startswith(cut.rstrip())
    assert len(cut) < len(answer["translation_text"])
    refused = http.post("/v1/translation", json={"inputs": text, "parameters": {"truncation": "do_not_truncate"}})
    assert refused.status_code == 413


def test_summarization(http: httpx.Client) -> None:
    (answer,) = post(http, "/v1/summarization", ABSTRACT)
    assert list(answer) == ["summary_text"]
    assert 10 < len(answer["summary_text"]) < len(ABSTRACT)


def test_a_long_text_is_summarized_in_windows(http: httpx.Client) -> None:
    long = f"{ABSTRACT} {CONTEXT} " * 4
    (whole,) = post(http, "/v1/summarization", long)
    (first,) = post(http, "/v1/summarization", long, truncation="only_first")
    assert len(whole["summary_text"]) > len(first["summary_text"])


def test_question_answering_gives_a_span_of_the_context(http: httpx.Client) -> None:
    answer = post(http, "/v1/question-answering", {"question": "Where was Marie Curie born?", "context": CONTEXT})
    assert set(answer) == {"answer", "score", "start", "end"}
    assert "Warsaw" in answer["answer"]
    assert CONTEXT[answer["start"] : answer["end"]] == answer["answer"]
    assert 0 < answer["score"] <= 1


def test_question_answering_top_k_is_a_ranked_list(http: httpx.Client) -> None:
    inputs = {"question": "Where was Marie Curie born?", "context": CONTEXT}
    answers = post(http, "/v1/question-answering", inputs, top_k=3)
    assert [answer["score"] for answer in answers] == sorted((answer["score"] for answer in answers), reverse=True)
    assert len({(answer["start"], answer["end"]) for answer in answers}) == 3
    assert answers[0] == post(http, "/v1/question-answering", inputs)


def test_an_answer_at_the_end_of_a_long_context_is_found(http: httpx.Client) -> None:
    """Windows overlap, and offsets count characters of the whole context, also behind characters of several bytes."""
    context = "Der Fluß fließt durch die 東京 😀 Stadt. The weather was fine on that day. " * 60 + CONTEXT
    answer = post(http, "/v1/question-answering", {"question": "Where was Marie Curie born?", "context": context})
    assert context[answer["start"] : answer["end"]] == answer["answer"]
    assert "Warsaw" in answer["answer"]


def test_recommendation(http: httpx.Client) -> None:
    example = next(card["example"] for card in http.get("/v1/models").json() if card["task"] == "recommendation")
    history = example["inputs"]["history"]
    answers = post(http, "/v1/recommendation", {"history": history}, top_k=5)
    assert len(answers) == 5
    assert all(set(answer) == {"item", "title", "score"} and answer["title"] for answer in answers)
    assert not {answer["item"] for answer in answers} & set(history)
    without_first = post(http, "/v1/recommendation", {"history": history}, top_k=4, exclude=[answers[0]["item"]])
    assert [answer["item"] for answer in without_first] == [answer["item"] for answer in answers[1:]]


def test_the_history_decides_what_is_recommended(http: httpx.Client) -> None:
    example = next(card["example"] for card in http.get("/v1/models").json() if card["task"] == "recommendation")
    history = example["inputs"]["history"]
    recommended = [answer["item"] for answer in post(http, "/v1/recommendation", {"history": history})]
    other = [answer["item"] for answer in post(http, "/v1/recommendation", {"history": recommended[-1:]})]
    assert recommended != other


def test_named_model_answers_like_the_default(http: httpx.Client) -> None:
    for card in http.get("/v1/models").json():
        bodies = [http.post(route, json=card["example"]) for route in card["routes"]]
        assert {body.status_code for body in bodies} == {200}
        assert len({body.text for body in bodies}) == 1
        assert f"/v1/{card['task']}" in card["routes"]


def test_inference_client_works_as_it_is(service: Service) -> None:
    def client(task: str) -> InferenceClient:
        return InferenceClient(model=f"{service.url}/v1/{task}")

    assert client("translation").translation(ENGLISH).translation_text
    assert client("translation").translation(ENGLISH, src_lang="en", tgt_lang="fr").translation_text
    assert client("summarization").summarization(ABSTRACT, clean_up_tokenization_spaces=True).summary_text
    one = client("question-answering").question_answering(
        "Who shared the prize?", CONTEXT, align_to_words=True, max_question_len=32, max_seq_len=128, doc_stride=16
    )
    assert not isinstance(one, list)
    assert one.answer == CONTEXT[one.start : one.end]
    several = client("question-answering").question_answering("Who shared the prize?", CONTEXT, top_k=2)
    assert isinstance(several, list)
    assert len(several) == 2


def test_inference_client_shows_our_message(service: Service) -> None:
    client = InferenceClient(model=f"{service.url}/v1/translation")
    with pytest.raises(Exception, match="tgt_lang must be one of fr"):
        client.translation(ENGLISH, src_lang="en", tgt_lang="xx")


def test_beams_answer(http: httpx.Client) -> None:
    """Of these sentences greedy search and beams translate some alike and some not."""
    texts = [f"{ENGLISH} I have {index} books, and I would like to read them all one day." for index in range(8)]
    greedy = post(http, "/v1/translation", texts)
    assert post(http, "/v1/translation", texts, generate_parameters={"num_beams": 1}) == greedy
    beams = {"num_beams": 5, "length_penalty": 1.5, "early_stopping": "never", "no_repeat_ngram_size": 4}
    answers = post(http, "/v1/translation", texts, generate_parameters=beams)
    assert all("sais" in answer["translation_text"].lower() for answer in answers)
    assert answers != greedy
    (summary,) = post(http, "/v1/summarization", ABSTRACT, generate_parameters={"num_beams": 3})
    assert summary["summary_text"]


def test_answers_are_the_same_alone_and_among_32_callers(http: httpx.Client) -> None:
    example = next(card["example"] for card in http.get("/v1/models").json() if card["task"] == "recommendation")
    history = example["inputs"]["history"]
    requests: list[tuple[str, Any]] = []
    for index in range(32):
        requests += [
            ("/v1/translation", {"inputs": f"{ENGLISH} I have {index} books." + " Thank you." * (index % 4)}),
            ("/v1/translation", with_beams(f"{ENGLISH} She has {index} houses.", 1 + index % 8)),
            ("/v1/summarization", {"inputs": ABSTRACT[index * 3 :]}),
            (
                "/v1/question-answering",
                {"inputs": {"question": "When did she move?", "context": CONTEXT * (1 + index % 5)}},
            ),
            ("/v1/recommendation", {"inputs": {"history": (history * 3)[: 1 + index]}}),
        ]

    def ask(request: tuple[str, Any]) -> Any:
        route, body = request
        response = http.post(route, content=json.dumps(body), headers={"Content-Type": "application/json"})
        assert response.status_code == 200, response.text
        return response.json()

    alone = [ask(request) for request in requests]
    with ThreadPoolExecutor(32) as callers:
        together = list(callers.map(ask, requests))
    assert together == alone
