"""Output tokens per second of Heedful over HTTP against CTranslate2 in process, in turn on the same texts.

    pip install -r loadtests/peers/requirements.txt
    python -m loadtests.peers.translation [--runs 3] [--folder runs/peers]

Heedful answers over HTTP from `heedful serve` with a replica of one thread for each core, and batches continuously as
callers come; each run starts it anew, so that nothing else runs in the peer's turn. CTranslate2 knows all texts and all
output lengths in advance: it gets them longest first, in batches of similar length, without any server, and the best of
several settings of workers, threads and batch size, which a first pass over other texts finds. A model of opus-mt's
size with random weights; sources of 16 to 32 tokens, outputs of 5 to 60 tokens, all written to their length.

A batch may have more rows than there are callers, which makes each row cheaper and which no server could do that has
only these callers. So a second line puts Heedful beside CTranslate2 with no more rows at once than there are callers.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import ctranslate2

from loadtests.bars import COLUMNS, Measured, markdown, of_runs
from loadtests.peers.converted import translator
from loadtests.peers.material import Material, prepare
from loadtests.peers.traffic import ROUTE, Asked, closed_loop_alone, draw, draw_from

ROUNDS = 12
"""Texts for each caller in a run. At the end of a run fewer and fewer callers are left, and a short run would measure
those.
"""
SLOTS = 32
"""Of a replica, as by default; more where it has more callers."""

Seconds = Callable[[Sequence[Asked]], float]
"""How long something takes to write all that is asked."""


@dataclass(frozen=True, slots=True)
class Rival:
    """A setting of what is compared with.

    Args:
        rows: that it computes at once.
    """

    name: str
    rows: int
    seconds: Seconds


@dataclass(frozen=True, slots=True)
class Setting:
    """A line of the table.

    Args:
        bar: the ratio that the project asks of itself, beside the best that CTranslate2 reaches.
        batches: rows of a batch that CTranslate2 is tried with.
        rounds: texts for each caller in a run.
    """

    precision: str
    callers: int
    beams: int
    bar: float | None
    batches: tuple[int, ...]
    has_shortlist: bool = False
    rounds: int = ROUNDS

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
    Setting("int8", 32, 1, 1.1, (16, 32, 64)),
    Setting("int8", 128, 1, None, (32, 64), rounds=6),
    Setting("int8", 8, 1, 1.2, (4, 8)),
    Setting("fp32", 32, 1, 1.1, (16, 32, 64)),
    Setting("int8", 8, 4, 0.9, (4, 8)),
)
SHORTLIST = Setting("int8", 32, 1, 1.6, (16, 32, 64), has_shortlist=True)


def in_process(peer: ctranslate2.Translator, texts: Sequence[tuple[list[str], Asked]], *, batch: int) -> float:
    """Seconds to translate everything, batches of similar output length side by side on all workers.

    Longest first, so that no long batch is left for the end; without beams a row leaves its batch at its own length, as
    it would at its end token.
    """
    ordered = sorted(texts, key=lambda text: -text[1].output_tokens)
    began = time.perf_counter()
    under_way = []
    for start in range(0, len(ordered), batch):
        group = ordered[start : start + batch]
        lengths = [asked.output_tokens for _, asked in group]
        beams = group[0][1].beams
        under_way += peer.translate_batch(
            [pieces for pieces, _ in group],
            beam_size=beams,
            max_decoding_length=max(lengths),
            min_decoding_length=max(lengths),
            max_batch_size=0,
            asynchronous=True,
            callback=_at_its_length(lengths) if beams == 1 else None,
        )
    for result in under_way:
        result.result()
    return time.perf_counter() - began


def _at_its_length(lengths: Sequence[int]) -> Callable[[ctranslate2.GenerationStepResult], bool]:
    return lambda step: bool(step.step + 1 >= lengths[step.batch_id])


def ctranslate2_rivals(setting: Setting, material: Material) -> Sequence[Rival]:
    """CTranslate2 in every setting that may be its best."""
    cores = os.cpu_count() or 1

    def seconds(peer: ctranslate2.Translator, batch: int) -> Seconds:
        return lambda asked: in_process(peer, [(material.pieces(one.text), one) for one in asked], batch=batch)

    found = []
    for workers, threads in sorted({(cores, 1), (1, cores)}):
        peer = translator(material, setting.precision, workers=workers, threads=threads)
        for batch in setting.batches:
            name = f"CTranslate2 in process, {workers} × {threads} threads, batches of {batch}"
            found.append(Rival(name, workers * batch, seconds(peer, batch)))
    return found


def compare(
    setting: Setting,
    material: Material,
    runs: int,
    *,
    rounds: int | None = None,
    rivals: Sequence[Rival] | None = None,
    parallel: Path | None = None,
) -> Iterator[Measured]:
    """A line beside the best of the rivals, and one beside the best that computes no more rows at once than we may.

    Args:
        runs: counted ones; another, before them, warms the rivals and finds the best.
        rounds: texts for each caller in a run; the setting's unless given.
        rivals: of one system; CTranslate2's unless given.
        parallel: a text to take sources from, and to learn the shortlist from where the setting has one.
    """
    tokenizer, count = material.checkpoint / "tokenizer.json", setting.callers * (rounds or setting.rounds)

    def drawn(run: int) -> Sequence[Asked]:
        if parallel:
            return draw_from(parallel, tokenizer, count, seed=run)
        return draw(tokenizer, count, seed=run, beams=setting.beams)

    first = drawn(0)
    tried = sorted(rivals or ctranslate2_rivals(setting, material), key=lambda rival: rival.seconds(first))
    best = tried[0]
    alike = next((rival for rival in tried if rival.rows <= setting.callers), best)
    chosen = [best] if alike is best else [best, alike]
    ours, client = [], []
    theirs: list[list[float]] = [[] for _ in chosen]
    for run in range(1, runs + 1):
        asked = drawn(run)
        tokens = sum(one.output_tokens for one in asked)
        load = closed_loop_alone(
            material.folder,
            material.bundle(setting.bundle),
            ROUTE,
            [one.body() for one in asked],
            callers=setting.callers,
            slots=max(SLOTS, setting.callers // (os.cpu_count() or 1)),
        )
        ours.append(tokens / load.wall_s)
        client.append(load.client_cores)
        for rival, found in zip(chosen, theirs, strict=True):
            rival.seconds(asked[: count // 2])
            found.append(tokens / rival.seconds(asked))
    for rival, found in zip(chosen, theirs, strict=True):
        bar = setting.bar if rival is best else None
        what = f"translation {setting.name}"
        yield of_runs(what, ours, found, "tokens/s", rival.name, bar=bar, client=client)


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="counted runs of each line; one more warms up")
    parser.add_argument("--folder", type=Path, default=Path("runs/peers"), help="for the model and the logs")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    material = prepare(options.folder, sorted({setting.precision for setting in SETTINGS}))
    lines = (line.cells() for setting in SETTINGS for line in compare(setting, material, options.runs))
    print(markdown(COLUMNS, lines))


if __name__ == "__main__":
    main()
