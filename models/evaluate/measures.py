"""The measures of each task on its public test set, through the bundle's own tokenizer, graphs and decoding."""

import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sacrebleu
from rich.progress import track
from rouge_score import rouge_scorer

from models.evaluate import baselines
from models.load import Loaded
from models.offline import answer_all
from models.train import data

TRANSLATION_SETS = ("tatoeba-test-v2021-08-07",)
HIT_AT = 10
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, slots=True)
class Result:
    """One number: whose, which, on what, and the measure's own signature where it has one."""

    system: str
    metric: str
    value: float
    dataset: str
    signature: str = ""


def translation(loaded: Loaded, directory: Path, limit: int | None) -> list[Result]:
    """BLEU and chrF by sacrebleu."""
    results = []
    for name in TRANSLATION_SETS:
        pairs = data.read_translation_test(directory, name)[:limit]
        answers = [
            response[0].translation_text
            for response in _answers(loaded, ({"inputs": pair.source} for pair in pairs), len(pairs))
        ]
        for metric in (sacrebleu.BLEU(), sacrebleu.CHRF()):
            score = metric.corpus_score(answers, [[pair.target for pair in pairs]])
            signature = str(metric.get_signature())
            results.append(Result("this bundle", metric.__class__.__name__, score.score, name, signature))
    return results


def summarization(loaded: Loaded, directory: Path, limit: int | None) -> list[Result]:
    """ROUGE-1, 2 and L, F measure in percent, stemmed."""
    pairs = data.read_arxiv(directory / data.arxiv_file("test"))[:limit]
    requests = ({"inputs": pair.source} for pair in pairs)
    answers = [response[0].summary_text for response in _answers(loaded, requests, len(pairs))]
    systems = {
        "this bundle": answers,
        "first sentence": [baselines.first_sentence(pair.source) for pair in pairs],
        "first ten words": [baselines.first_words(pair.source) for pair in pairs],
    }
    names = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}
    scorer = rouge_scorer.RougeScorer(list(names), use_stemmer=True)
    results = []
    for system, texts in systems.items():
        scores = [scorer.score(pair.target, text) for pair, text in zip(pairs, texts, strict=True)]
        for key, metric in names.items():
            mean = 100 * float(np.mean([score[key].fmeasure for score in scores]))
            results.append(Result(system, metric, mean, "arXiv abstracts and titles, test", "rouge-score, stemmed"))
    return results


def question_answering(loaded: Loaded, directory: Path, limit: int | None) -> list[Result]:
    """Exact match and F1 in percent, by the rules of the official SQuAD 1.1 script."""
    questions = data.read_squad(directory / data.SQUAD_DEV)[:limit]
    requests = (
        {"inputs": {"question": entry.question, "context": entry.context}, "parameters": {"max_answer_len": 30}}
        for entry in questions
    )
    answers = [response.answer for response in _answers(loaded, requests, len(questions))]
    exact, overlap = [], []
    for entry, answer in zip(questions, answers, strict=True):
        exact.append(max(normalize(answer) == normalize(gold) for gold in entry.answers))
        overlap.append(max(f1(answer, gold) for gold in entry.answers))
    return [
        Result("this bundle", "EM", 100 * float(np.mean(exact)), "SQuAD 1.1 dev"),
        Result("this bundle", "F1", 100 * float(np.mean(overlap)), "SQuAD 1.1 dev"),
    ]


def normalize(answer: str) -> str:
    """Lower case without punctuation, articles and extra blanks, as the official SQuAD script does."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def f1(answer: str, gold: str) -> float:
    """Harmonic mean of precision and recall over normalized words."""
    given, wanted = normalize(answer).split(), normalize(gold).split()
    same = sum((Counter(given) & Counter(wanted)).values())
    return 2 * same / (len(given) + len(wanted)) if same else 0.0


def recommendation(loaded: Loaded, directory: Path, limit: int | None) -> list[Result]:
    """HR@10 and NDCG@10, leave-one-out, every item ranked, seen items removed."""
    purchases = data.read_online_retail(directory / data.ONLINE_RETAIL)
    histories, items = purchases.histories[:limit], len(purchases.items)
    known = [history[:-1] for history in purchases.histories]
    wanted = [history[-1] for history in histories]
    followed, similar = baselines.markov(known, items), baselines.item_similarity(known, items)
    popular = baselines.popularity(known, items)
    scorers: dict[str, Callable[[Sequence[int]], baselines.Scores]] = {
        "popularity": lambda _: popular,
        "item-kNN": lambda history: baselines.neighbours(similar, history),
        "first-order Markov": lambda history: followed[history[-1] - 1],
    }
    requests = (
        {
            "inputs": {"history": [purchases.items[item - 1] for item in history[:-1]]},
            "parameters": {"top_k": HIT_AT},
        }
        for history in histories
    )
    ids = {item: index for index, item in enumerate(purchases.items, start=1)}
    ranked = {
        "this bundle": [[ids[answer.item] for answer in r] for r in _answers(loaded, requests, len(histories))],
        **{
            name: [_best(score(history[:-1]), history[:-1]) for history in histories] for name, score in scorers.items()
        },
    }
    results = []
    for system, lists in ranked.items():
        places = [found.index(item) if item in found else None for found, item in zip(lists, wanted, strict=True)]
        hits = float(np.mean([place is not None for place in places]))
        gain = float(np.mean([0.0 if place is None else 1 / np.log2(place + 2) for place in places]))
        results += [
            Result(system, f"HR@{HIT_AT}", hits, "Online Retail, leave one out"),
            Result(system, f"NDCG@{HIT_AT}", gain, "Online Retail, leave one out"),
        ]
    return results


def _best(scores: baselines.Scores, seen: Sequence[int]) -> list[int]:
    unseen = scores.copy()
    unseen[np.array(seen) - 1] = -np.inf
    return [int(index) + 1 for index in np.argsort(-unseen, kind="stable")[:HIT_AT]]


def _answers(loaded: Loaded, bodies: Iterable[dict[str, Any]], total: int) -> Iterator[Any]:
    requests = (loaded.task.request_type.model_validate(body) for body in bodies)
    return iter(track(answer_all(loaded, requests), description=loaded.bundle.manifest.name, total=total))


MEASURES: dict[str, Callable[[Loaded, Path, int | None], list[Result]]] = {
    "translation": translation,
    "summarization": summarization,
    "question-answering": question_answering,
    "recommendation": recommendation,
}
