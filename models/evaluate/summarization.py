"""ROUGE of a summarization bundle on abstracts whose summaries are their titles."""

from pathlib import Path

import numpy as np
from rouge_score import rouge_scorer

from models.evaluate import baselines
from models.evaluate.result import BUNDLE, Result, answers
from models.load import Loaded
from models.train import data


def summarization(loaded: Loaded, directory: Path, limit: int | None) -> list[Result]:
    """ROUGE-1, 2 and L, F measure in percent, stemmed."""
    pairs = data.read_arxiv(directory / data.arxiv_file("test"))[:limit]
    requests = ({"inputs": pair.source} for pair in pairs)
    summaries = [response[0].summary_text for response in answers(loaded, requests, len(pairs))]
    systems = {
        BUNDLE: summaries,
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
