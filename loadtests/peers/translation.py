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
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import ctranslate2

from loadtests.bars import COLUMNS, Measured, markdown, of_runs
from loadtests.client import closed_loop, post
from loadtests.peers.converted import translator
from loadtests.peers.material import Material, prepare
from loadtests.peers.traffic import ROUTE, Asked, draw, draw_from, served

ROUNDS = 12
"""Texts for each caller in a run. At the end of a run fewer and fewer callers are left, and a short run would measure
those.
"""

Seconds = Callable[[Sequence[Asked]], float]
"""How long something takes to write all that is asked."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A line of the table; `bar` is the ratio that the project asks of itself."""

    precision: str
    callers: int
    beams: int
    bar: float | None
    has_shortlist: bool = False

    @property
    def bundle(self) -> str:
        """Which of the bundles, see `Material.bundle`."""
        return f"{self.precision}-shortlist" if self.has_shortlist else self.precision

    @property
    def name(self) -> str:
        """In the table."""
        beams = f", {self.beams} beams" if self.beams > 1 else ""
        return f"{self.precision}, {self.callers} callers{beams}{', shortlist' if self.has_shortlist else ''}"


SETTINGS = (
    Setting("int8", 32, 1, 1.1),
    Setting("int8", 8, 1, 1.2),
    Setting("fp32", 32, 1, 1.1),
    Setting("int8", 8, 4, 0.9),
)
SHORTLIST = Setting("int8", 32, 1, 1.6, has_shortlist=True)


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


def ctranslate2_seconds(setting: Setting, material: Material) -> Seconds:
    """CTranslate2 in the better of two settings of workers and threads."""
    cores = os.cpu_count() or 1
    peers = {
        (workers, threads): translator(material, setting.precision, workers=workers, threads=threads)
        for workers, threads in {(cores, 1), (1, cores)}
    }

    def seconds(asked: Sequence[Asked]) -> float:
        texts = [(material.pieces(one.text), one) for one in asked]
        return min(
            in_process(peer, texts, batch=max(1, setting.callers // workers)) for (workers, _), peer in peers.items()
        )

    return seconds


def compare(
    setting: Setting,
    material: Material,
    runs: int,
    *,
    rounds: int = ROUNDS,
    beside: str = "CTranslate2 in process",
    theirs_s: Seconds | None = None,
    parallel: Path | None = None,
) -> Measured:
    """One line of the table.

    Args:
        runs: counted ones; one more warms both.
        rounds: texts for each caller in a run.
        beside: the name of what is compared with.
        theirs_s: how long it takes for all texts; CTranslate2 unless given.
        parallel: a text to take sources from, and to learn the shortlist from where the setting has one.
    """
    rival, tokenizer = theirs_s or ctranslate2_seconds(setting, material), material.checkpoint / "tokenizer.json"
    ours, theirs, client = [], [], []
    with served(material.folder, material.bundle(setting.bundle), "ray", replicas=os.cpu_count() or 1) as service:
        url = service.url + ROUTE
        for run in range(runs + 1):
            count = setting.callers * rounds
            asked = (
                draw_from(parallel, tokenizer, count, seed=run)
                if parallel
                else draw(tokenizer, count, seed=run, beams=setting.beams)
            )
            tokens = sum(one.output_tokens for one in asked)
            load = closed_loop(url, [post(url, one.body()) for one in asked], callers=setting.callers)
            taken_s = rival(asked)
            if run:
                ours.append(tokens / load.wall_s)
                theirs.append(tokens / taken_s)
                client.append(load.client_cores)
    return of_runs(f"translation {setting.name}", ours, theirs, "tokens/s", beside, bar=setting.bar, client=client)


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="counted runs of each line; one more warms up")
    parser.add_argument("--folder", type=Path, default=Path("runs/peers"), help="for the model and the logs")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    material = prepare(options.folder, sorted({setting.precision for setting in SETTINGS}))
    lines = (compare(setting, material, options.runs).cells() for setting in SETTINGS)
    print(markdown(COLUMNS, lines))


if __name__ == "__main__":
    main()
