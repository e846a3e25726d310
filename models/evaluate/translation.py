"""BLEU and chrF of a translation bundle on public test sets."""

from collections.abc import Mapping
from pathlib import Path

import sacrebleu

from models.evaluate.result import BUNDLE, Result, answers
from models.load import Loaded
from models.train import data

TEST_SETS = ("tatoeba-test-v2021-08-07", "newstest2013", "flores101-devtest")
PUBLISHED = (
    Result("OPUS-MT, 75 M parameters (published)", "BLEU", 33.2, "newstest2013", "card of opus-mt-en-fr"),
    Result("OPUS-MT, 75 M parameters (published)", "BLEU", 50.5, "Tatoeba, another sample", "card of opus-mt-en-fr"),
)


def translation(
    loaded: Loaded, directory: Path, limit: int | None, languages: Mapping[str, str] | None = None
) -> list[Result]:
    """BLEU and chrF by sacrebleu, beside the source text left as it is.

    Args:
        languages: parameters of each request, for a model that must be told them.

    Raises:
        InvalidInput: the model does not know a language, or must be told one.
    """
    results = []
    for name in TEST_SETS:
        pairs = data.read_translation_test(directory, name)[:limit]
        sources, targets = [pair.source for pair in pairs], [pair.target for pair in pairs]
        translated = [
            response[0].translation_text
            for response in answers(
                loaded, ({"inputs": source, "parameters": languages} for source in sources), len(pairs)
            )
        ]
        for system, texts in ((BUNDLE, translated), ("source left as it is", sources)):
            for metric in (sacrebleu.BLEU(), sacrebleu.CHRF()):
                score = metric.corpus_score(texts, [targets])
                dataset = f"{name}, {len(pairs):,} sentences"
                results.append(Result(system, score.name, score.score, dataset, str(metric.get_signature())))
    return [*results, *PUBLISHED]
