"""Output tokens per second of Heedful over HTTP against CTranslate2 in process, in turn on the same texts.

    pip install -r loadtests/peers/requirements.txt
    python -m loadtests.peers.translation [--runs 3] [--folder runs/peers]

Heedful answers over HTTP from `heedful serve` with a replica of one thread for each core, and batches continuously as
callers come. CTranslate2 knows all texts and all output lengths in advance: it gets them grouped by length, in batches
as large as there are callers, in the better of two settings of workers and threads, without any server. A model of
opus-mt's size with random weights; sources of 16 to 32 tokens, outputs of 5 to 60 tokens, all written to their length.
"""

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ctranslate2

from loadtests.peers.material import Material, prepare, translator
from loadtests.peers.traffic import Asked, ask, draw, served

ROUNDS = 4
"""Texts for each caller in a run."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A line of the table; `bar` is the ratio that the project asks of itself."""

    precision: str
    callers: int
    beams: int
    bar: float


SETTINGS = (
    Setting("int8", 32, 1, 1.1),
    Setting("int8", 8, 1, 1.2),
    Setting("fp32", 32, 1, 1.1),
    Setting("int8", 8, 4, 0.9),
)


def in_process(peer: ctranslate2.Translator, texts: Sequence[tuple[list[str], Asked]], *, batch: int) -> float:
    """Seconds to translate everything, batches of similar output length side by side on all workers."""
    ordered = sorted(texts, key=lambda text: text[1].output_tokens)
    began = time.perf_counter()
    under_way = []
    for start in range(0, len(ordered), batch):
        group = ordered[start : start + batch]
        length = max(asked.output_tokens for _, asked in group)
        under_way += peer.translate_batch(
            [pieces for pieces, _ in group],
            beam_size=group[0][1].beams,
            max_decoding_length=length,
            min_decoding_length=length,
            max_batch_size=0,
            asynchronous=True,
        )
    for result in under_way:
        result.result()
    return time.perf_counter() - began


def compare(setting: Setting, material: Material, folder: Path, runs: int) -> None:
    """Print one line of the table."""
    cores = os.cpu_count() or 1
    peers = {
        (workers, threads): translator(material, setting.precision, workers=workers, threads=threads)
        for workers, threads in {(cores, 1), (1, cores)}
    }
    ours, theirs, client = [], [], []
    with served(folder, material.bundle(setting.precision), "ray", replicas=cores) as service:
        for run in range(runs + 1):
            asked = draw(
                material.checkpoint / "tokenizer.json", setting.callers * ROUNDS, seed=run, beams=setting.beams
            )
            tokens = sum(one.output_tokens for one in asked)
            taken = ask(service.url, asked, callers=setting.callers)
            texts = [(material.pieces(one.text), one) for one in asked]
            best = min(
                in_process(peer, texts, batch=max(1, setting.callers // workers))
                for (workers, _), peer in peers.items()
            )
            if run:  # the first one warms both
                ours.append(tokens / taken.wall_s)
                theirs.append(tokens / best)
                client.append(taken.client_cpu_s / taken.wall_s)
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    print(
        f"| {setting.precision}, {setting.callers} callers, {setting.beams} beams"
        f" | {statistics.median(ours):,.0f} | {statistics.median(theirs):,.0f}"
        f" | {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}) | {setting.bar}"
        f" | {100 * statistics.median(client):.0f} % |",
        flush=True,
    )


def main() -> None:
    """Print a Markdown table, a line as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="counted runs of each line; one more warms up")
    parser.add_argument("--folder", type=Path, default=Path("runs/peers"), help="for the model and the logs")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    material = prepare(options.folder, sorted({setting.precision for setting in SETTINGS}))
    print("| setting | Heedful, tokens/s | CTranslate2, tokens/s | ratio (least-most) | bar | client, of a core |")
    print("|---|---|---|---|---|---|")
    for setting in SETTINGS:
        compare(setting, material, options.folder, options.runs)


if __name__ == "__main__":
    main()
