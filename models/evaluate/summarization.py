"""ROUGE of a summarization bundle, and what ROUGE does not see: circles, and numbers that nobody gave it."""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from rouge_score import rouge_scorer

from models.evaluate import baselines
from models.evaluate.result import BUNDLE, Result, answers
from models.load import Loaded
from models.train import data

_CIRCLE = re.compile(r"(\S{3,}?)\1\1")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_MEASURES = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}


def summarization(loaded: Loaded, directory: Path, limit: int | None) -> list[Result]:
    """Titles of arXiv abstracts and sentences for those of SciTLDR; what is over the model's limit is cut off."""
    papers = data.read_arxiv(directory / data.arxiv_file("test"))[:limit]
    tldrs = data.read_scitldr(directory / data.SCITLDR_DEV)[:limit]
    results = []
    for sources, references, dataset in (
        ([paper.source for paper in papers], [(paper.target,) for paper in papers], "arXiv abstracts and titles, test"),
        ([tldr.source for tldr in tldrs], [tldr.targets for tldr in tldrs], "SciTLDR-A, dev"),
    ):
        requests = ({"inputs": source, "parameters": {"truncation": "longest_first"}} for source in sources)
        summaries = [response[0].summary_text for response in answers(loaded, requests, len(sources))]
        results += _rouge(sources, references, summaries, dataset)
        pairs = list(zip(summaries, sources, strict=True))
        circles = sum(goes_in_circles(summary) for summary, _ in pairs)
        invented = sum(bool(invented_numbers(summary, source)) for summary, source in pairs)
        results += [
            Result(BUNDLE, f"go in circles, of {len(pairs):,}", circles, dataset),
            Result(BUNDLE, f"have a number that the abstract has not, of {len(pairs):,}", invented, dataset),
        ]
    return results


def _rouge(
    sources: Sequence[str], references: Sequence[Sequence[str]], summaries: Sequence[str], dataset: str
) -> list[Result]:
    """F measure in percent, stemmed; of several references the nearest counts, for each measure by itself."""
    systems = {
        BUNDLE: summaries,
        "first sentence": [baselines.first_sentence(source) for source in sources],
        "first ten words": [baselines.first_words(source) for source in sources],
    }
    scorer = rouge_scorer.RougeScorer(list(_MEASURES), use_stemmer=True)
    results = []
    for system, texts in systems.items():
        scores = [scorer.score_multi(wanted, text) for wanted, text in zip(references, texts, strict=True)]
        for key, metric in _MEASURES.items():
            mean = 100 * float(np.mean([score[key].fmeasure for score in scores]))
            results.append(Result(system, metric, mean, dataset, "rouge-score, stemmed"))
    return results


def goes_in_circles(summary: str) -> bool:
    """Whether two words in a row come twice, or three characters and more three times without a break.

    Blanks do not count as characters, so that a repeated word is found as a repeated part of a word is.
    """
    words = summary.lower().split()
    pairs = list(pairwise(words))
    return len(set(pairs)) < len(pairs) or _CIRCLE.search("".join(words)) is not None


def invented_numbers(summary: str, source: str) -> set[str]:
    """Numbers of the summary that do not stand in the source, as they are written: `12`, `0.5`, `1,000`."""
    return set(_NUMBER.findall(summary)) - set(_NUMBER.findall(source))
