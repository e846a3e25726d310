"""Histories become rows, scores become a ranking without what must not be recommended."""

import json

import numpy as np
import pytest

from models.errors import BundleError, InvalidInput, TooLarge
from models.task import Output, Row
from models.tasks.recommendation import Recommendation, RecommendationAnswer, RecommendationRequest
from tests.models.tasks.bundles import bundle_of

ITEMS = [{"item": name, "title": name.upper()} for name in "abcdefgh"]


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Recommendation:
    folder = tmp_path_factory.mktemp("bundle")
    return Recommendation(bundle_of("recommendation", folder, max_tokens=3, catalogue=json.dumps(ITEMS)))


def recommend(
    task: Recommendation, history: list[str], scores: list[float], **parameters: object
) -> tuple[Row, list[RecommendationAnswer]]:
    body = {"inputs": {"history": history}, "parameters": parameters}
    solution = task.solve(RecommendationRequest.model_validate(body))
    (row,) = next(solution)
    with pytest.raises(StopIteration) as stop:
        solution.send([Output((), {"scores": np.array(scores, np.float32)}, "stop")])
    return row, stop.value.value


SCORES = [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]


def test_the_most_recent_items_are_read_and_the_best_recommended(task: Recommendation) -> None:
    row, answers = recommend(task, ["a", "b", "c", "d"], SCORES, top_k=2)
    assert row.tokens.tolist() == [2, 3, 4]
    assert [(answer.item, answer.title) for answer in answers] == [("e", "E"), ("f", "F")]


def test_the_whole_history_is_left_out_also_what_the_model_does_not_read(task: Recommendation) -> None:
    _, answers = recommend(task, list("abcd"), SCORES)
    assert [answer.item for answer in answers] == list("efgh")


def test_history_may_be_recommended_again_when_asked(task: Recommendation) -> None:
    _, answers = recommend(task, ["a"], SCORES, exclude_history=False, exclude=["b"], top_k=2)
    assert [answer.item for answer in answers] == ["a", "c"]


def test_scores_are_probabilities_among_what_may_be_recommended(task: Recommendation) -> None:
    _, answers = recommend(task, ["a"], SCORES, top_k=100)
    assert len(answers) == 7
    assert sum(answer.score for answer in answers) == pytest.approx(1)
    assert answers[0].score / answers[1].score == pytest.approx(np.e)


def test_nothing_left_to_recommend_is_an_empty_list(task: Recommendation) -> None:
    assert recommend(task, list("abcdefgh"), SCORES)[1] == []


def test_refusals_name_field_limit_and_value(task: Recommendation) -> None:
    for history, parameters, error, message in (
        ([], {}, InvalidInput, "inputs/history must hold at least 1 item"),
        (["a", "z"], {}, InvalidInput, "inputs/history/1 must be one of the model's 8 items, got 'z'"),
        (["a"] * 21, {}, TooLarge, "inputs/history may hold at most 20 items, got 21"),
        (["a"], {"exclude": ["z"]}, InvalidInput, "parameters/exclude/0 must be one of"),
        (["a"], {"top_k": 101}, InvalidInput, "parameters/top_k may be at most 100 for this model, got 101"),
    ):
        body = {"inputs": {"history": history}, "parameters": parameters}
        with pytest.raises(error, match=message):
            next(task.solve(RecommendationRequest.model_validate(body)))


def test_attention_is_refused_where_the_bundle_has_no_graph_that_shows_it(task: Recommendation) -> None:
    body = {"inputs": {"history": ["a", "b"]}, "explain": {"method": ["attention", "occlusion"]}}
    with pytest.raises(InvalidInput, match="explain/method attention needs a graph that this model's") as refused:
        next(task.solve(RecommendationRequest.model_validate(body)))
    assert refused.value.pointer == "/explain/method"


def test_a_broken_catalogue_is_named(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(BundleError, match=r"catalogue\.json: not a catalogue"):
        Recommendation(
            bundle_of("recommendation", tmp_path_factory.mktemp("b"), max_tokens=3, catalogue='[{"item": 1}]')
        )
