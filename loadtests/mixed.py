"""What long requests do to short ones, and how much padding is computed, on real-size models over HTTP.

    python -m loadtests.mixed [--runs 3] [--seconds 8] [--folder runs/peers]

Short requests come from callers who each wait for their answer, first alone, then while other callers ask for long ones
without a pause. Padding is read from `/metrics` after each model's traffic of lengths as they are drawn.
"""

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from loadtests.bars import COLUMNS, Measured, markdown
from loadtests.client import beside, for_seconds, post
from loadtests.peers.material import prepare, question_answering_bundle
from loadtests.peers.systems import heedful_body
from loadtests.peers.traffic import Asked, Question, draw, draw_questions, served

RUNS, SECONDS = 3, 8.0
SHORT_CALLERS, LONG_CALLERS = 4, 4
SHORT_TOKENS = 5
"""That a short translation writes."""
SHORT_WORDS, LONG_WORDS = 16, 1_500
"""Of the context that a short question and a long one ask about."""
BESIDE_BAR, PADDING_BAR = 2, 0.05
TEXTS = 256


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is asked of one task.

    Args:
        drawn: lengths as in the other comparisons.
        short: requests that are soon answered.
        long: requests of which a few keep the model busy.
    """

    task: str
    bundle: Path
    drawn: Sequence[Asked | Question]
    short: Sequence[Asked | Question]
    long: Sequence[Asked | Question]


def translation(folder: Path) -> Traffic:
    """Long ones write as much as they may; short ones have half as long a source and write a few tokens."""
    material = prepare(folder, ["int8"])
    drawn = draw(material.checkpoint / "tokenizer.json", TEXTS, seed=0)
    most = max(asked.output_tokens for asked in drawn)
    short = [Asked(" ".join(asked.text.split()[:6]), SHORT_TOKENS, 1) for asked in drawn]
    return Traffic(
        "translation", material.bundle("int8"), drawn, short, [Asked(asked.text, most, 1) for asked in drawn]
    )


def question_answering(folder: Path) -> Traffic:
    """Long ones ask about a text of many windows."""
    bundle = question_answering_bundle(folder)
    drawn = draw_questions(bundle / "tokenizer.json", TEXTS, seed=0)
    short = [Question(one.question, " ".join(one.context.split()[:SHORT_WORDS])) for one in drawn]
    words = " ".join(one.context for one in drawn).split()
    long = [
        Question(one.question, " ".join(words[start : start + LONG_WORDS]))
        for start, one in zip(range(0, len(words) - LONG_WORDS, LONG_WORDS), drawn, strict=False)
    ]
    return Traffic("question-answering", bundle, drawn, short, long)


def measure(traffic: Traffic, folder: Path, runs: int, seconds: float) -> Iterator[Measured]:
    """A line for what long requests do to short ones, and one for the padding."""
    with served(folder, traffic.bundle, "ray", replicas=os.cpu_count() or 1) as service:
        url = f"{service.url}/v1/{traffic.task}"
        drawn, short, long = (
            [post(url, heedful_body(one)) for one in asked] for asked in (traffic.drawn, traffic.short, traffic.long)
        )
        for_seconds(url, drawn, callers=32, seconds=seconds)
        computed, padding = _tokens(service.url, traffic.task)
        alone, crowded = [], []
        for _ in range(runs):
            alone.append(for_seconds(url, short, callers=SHORT_CALLERS, seconds=seconds))
            crowded.append(beside(url, short, long, callers=SHORT_CALLERS, other_callers=LONG_CALLERS, seconds=seconds))
    ratios = tuple(mine.quantile_s(0.99) / quiet.quantile_s(0.99) for mine, quiet in zip(crowded, alone, strict=True))
    middle = sorted(range(runs), key=lambda run: ratios[run])[runs // 2]
    yield Measured(
        f"{traffic.task} int8, p99 of {SHORT_CALLERS} short callers beside {LONG_CALLERS} long ones",
        ratios,
        BESIDE_BAR,
        at_least=False,
        ours=f"{1e3 * crowded[middle].quantile_s(0.99):,.0f} ms",
        theirs=f"{1e3 * alone[middle].quantile_s(0.99):,.0f} ms, alone",
        client_cores=crowded[middle].client_cores,
    )
    yield Measured(
        f"{traffic.task} int8, padding ÷ computed tokens",
        (padding / (computed + padding),),
        PADDING_BAR,
        at_least=False,
        ours=f"{padding:,.0f} tokens",
        theirs=f"{computed + padding:,.0f} tokens, computed",
    )


def _tokens(url: str, task: str) -> tuple[float, float]:
    """Source tokens of answered requests, and those that were computed to fill rows up, over all replicas."""
    source = padding = 0.0
    for family in text_string_to_metric_families(httpx.get(f"{url}/metrics").text):
        for sample in family.samples:
            if sample.labels.get("task") != task:
                continue
            if sample.name == "heedful_tokens_total" and sample.labels["direction"] == "source":
                source += sample.value
            elif sample.name == "heedful_padding_tokens_total":
                padding += sample.value
    return source, padding


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each load")
    parser.add_argument("--folder", type=Path, default=Path("runs/peers"), help="for the models and the logs")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    lines = [
        line.cells()
        for traffic in (translation(options.folder), question_answering(options.folder))
        for line in measure(traffic, options.folder, options.runs, options.seconds)
    ]
    print(markdown(COLUMNS, lines))


if __name__ == "__main__":
    main()
