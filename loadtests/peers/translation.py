"""Output tokens per second of Heedful over HTTP against CTranslate2 in process, in turn on the same texts.

    pip install -r loadtests/peers/requirements.txt
    python -m loadtests.peers.translation [--runs 3] [--folder runs/peers]

Heedful answers over HTTP from `heedful serve` with a replica of one thread for each core, and batches continuously as
callers come; each run starts it anew, so that nothing else runs in the peer's turn. CTranslate2 knows all texts and all
output lengths in advance: it gets them longest first, in batches of similar length, without any server, and the best of
several settings of workers, threads and batch size, which a first pass over other texts finds. A model of opus-mt's
size with random weights; sources of 16 to 32 tokens, outputs of 5 to 60 tokens, all written to their length.
"""

import argparse
import os
import time
from collections.abc import Callable, Mapping, Sequence
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

Seconds = Callable[[Sequence[Asked]], float]
"""How long something takes to write all that is asked."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A line of the table.

    Args:
        bar: the ratio that the project asks of itself.
        batch_up_to: rows of the largest batches that CTranslate2 is tried with.
    """

    precision: str
    callers: int
    beams: int
    bar: float | None
    batch_up_to: int
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
    Setting("int8", 32, 1, 1.1, batch_up_to=64),
    Setting("int8", 8, 1, 1.2, batch_up_to=8),
    Setting("fp32", 32, 1, 1.1, batch_up_to=64),
    Setting("int8", 8, 4, 0.9, batch_up_to=8),
)
SHORTLIST = Setting("int8", 32, 1, 1.6, batch_up_to=64, has_shortlist=True)


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


def in_settings(setting: Setting, material: Material) -> Mapping[str, Seconds]:
    """CTranslate2 in every setting that may be its best, by name; with and without more rows than there are callers."""
    cores = os.cpu_count() or 1

    def seconds(peer: ctranslate2.Translator, batch: int) -> Seconds:
        return lambda asked: in_process(peer, [(material.pieces(one.text), one) for one in asked], batch=batch)

    found = {}
    for workers, threads in sorted({(cores, 1), (1, cores)}):
        peer = translator(material, setting.precision, workers=workers, threads=threads)
        for batch in sorted({max(1, setting.callers // cores), setting.callers, 2 * setting.callers}):
            if batch <= setting.batch_up_to:
                name = f"CTranslate2 in process, {workers} × {threads} threads, batches of {batch}"
                found[name] = seconds(peer, batch)
    return found


def compare(
    setting: Setting,
    material: Material,
    runs: int,
    *,
    rounds: int = ROUNDS,
    rivals: Mapping[str, Seconds] | None = None,
    parallel: Path | None = None,
) -> Measured:
    """One line of the table.

    Args:
        runs: counted ones; another, before them, warms the peer and finds its best setting.
        rounds: texts for each caller in a run.
        rivals: settings of a peer, by name; CTranslate2's unless given.
        parallel: a text to take sources from, and to learn the shortlist from where the setting has one.
    """
    tokenizer, count = material.checkpoint / "tokenizer.json", setting.callers * rounds

    def drawn(run: int) -> Sequence[Asked]:
        if parallel:
            return draw_from(parallel, tokenizer, count, seed=run)
        return draw(tokenizer, count, seed=run, beams=setting.beams)

    rivals = rivals or in_settings(setting, material)
    seconds = {name: rival(drawn(0)) for name, rival in rivals.items()}
    best = min(seconds, key=lambda name: seconds[name])
    ours, theirs, client = [], [], []
    for run in range(1, runs + 1):
        asked = drawn(run)
        tokens = sum(one.output_tokens for one in asked)
        load = closed_loop_alone(
            material.folder,
            material.bundle(setting.bundle),
            ROUTE,
            [one.body() for one in asked],
            callers=setting.callers,
        )
        rivals[best](asked[: count // 2])
        ours.append(tokens / load.wall_s)
        theirs.append(tokens / rivals[best](asked))
        client.append(load.client_cores)
    return of_runs(f"translation {setting.name}", ours, theirs, "tokens/s", best, bar=setting.bar, client=client)


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
