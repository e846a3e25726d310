"""Where the time of a decoding step goes, how it grows with rows and cache length, and what a shortlist brings.

    python -m loadtests.steps --parallel PARALLEL_TEXT [--runs 3] [--folder runs/steps]

A model of opus-mt's size with random weights, in int8 on one thread, translates sources of 16 to 32 tokens from the
parallel text: lines of a source, a tab and its translation, `.xz` or not, from which its shortlist is learned too. It
is made the first time, which takes minutes and 1 GB. Every figure is a median over runs in which all settings take
turns, ratios are medians of the runs' own ratios.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from loadtests.checkpoints import opus_mt
from loadtests.timed import CHOOSING, DELIVERING, READING, RUNNING, Clock, TimedModel, assembled
from models.bundle import Bundle, open_bundle
from models.export.shortlisting import read_pairs
from models.task import Generation, Row
from service.rows import Batch, Rows

SOURCE_TOKENS = (16, 32)
STEPS, SETTLING = 24, 4
ROWS = (1, 8, 32)
BEAMS = 4
CACHES = (32, 512)
MOST_ROWS, MOST_CACHE = 6, 1.1
"""What the project asks of itself: so many times the step of one row for 32, and of a short cache for a long one."""


def prepare(folder: Path, parallel: Path) -> Bundle:
    """The bundle, made where it is not there yet."""
    checkpoint, bundle = folder / "checkpoint", folder / "bundle"
    if not checkpoint.is_dir():
        opus_mt(checkpoint)
    if not bundle.is_dir():
        languages = ["--source-language", "en", "--target-language", "de"]
        options = ["--task", "translation", *languages, "--shortlist", str(parallel), "--out", str(bundle)]
        subprocess.run([sys.executable, "-m", "service", "export", str(checkpoint), *options], check=True)
    return open_bundle(bundle)


def without_end(bundle: Bundle) -> Bundle:
    """With random weights the end would come at random, and rows would leave."""
    generation = bundle.manifest.generation
    if generation is None:
        raise SystemExit(f"{bundle.folder} does not generate")
    suppressed = (*generation.suppressed_token_ids, generation.eos_token_id)
    changed = generation.model_copy(update={"suppressed_token_ids": suppressed, "forced_eos_token_id": None})
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"generation": changed}))


def sources(bundle: Bundle, parallel: Path, seed: int) -> Iterator[Row]:
    """Sources from all over the text, over and over."""
    tokenizer = Tokenizer.from_file(str(bundle.folder / "tokenizer.json"))
    texts = sorted({source for source, _ in read_pairs(parallel)})
    rng = np.random.default_rng(seed)
    while True:
        tokens = tokenizer.encode(texts[rng.integers(len(texts))]).ids
        if SOURCE_TOKENS[0] <= len(tokens) <= SOURCE_TOKENS[1]:
            yield Row(np.array(tokens, np.int64))


def steps(model: TimedModel, rows: Sequence[Row], *, beams: int) -> Clock:
    """Means of a step of these rows, from the fifth on, delivered as the service does."""
    asked = Generation(SETTLING + STEPS + 2, num_beams=beams, early_stopping="never")
    batch = Batch(0, range(len(rows)), [replace(row, generation=asked) for row in rows], 0, 0.0)
    served = Rows(model, "steps")
    served.enqueue(batch)
    for _ in range(SETTLING):
        served.iterate(served.schedule())
    model.clock.clear()
    began = time.perf_counter()
    for _ in range(STEPS):
        if served.iterate(served.schedule()) != len(rows):
            raise SystemExit("rows left before their time")
    total = time.perf_counter() - began
    found = {name: seconds / STEPS for name, seconds in model.clock.items()}
    found[DELIVERING] = (total - model.clock[DELIVERING]) / STEPS
    model.reset()
    return {**found, "": total / STEPS}


def profile(bundle: Bundle, waiting: Iterator[Row], runs: int) -> None:
    """Two tables: parts of a step, and steps with and without the shortlist."""
    settings = [(rows, beams) for beams in (1, BEAMS) for rows in ROWS]
    models = {
        short: assembled(bundle, short=short, slots=ROWS[-1] * BEAMS, source_length=64, target_length=64)
        for short in (False, True)
    }
    found: dict[tuple[int, int, bool], list[Clock]] = {}
    columns: dict[tuple[int, int], list[int]] = {}
    for _ in range(runs):
        for rows, beams in settings:
            together = list(islice(waiting, rows))
            for short, model in models.items():
                found.setdefault((rows, beams, short), []).append(steps(model, together, beams=beams))
            columns.setdefault((rows, beams), []).append(models[True].columns)
    print("| rows | beams | shortlist | step, ms | ONNX Runtime | reading | choosing | delivering | the rest |")
    print("|---|---|---|---|---|---|---|---|---|")
    for (rows, beams, short), clocks in found.items():
        total = statistics.median(clock[""] for clock in clocks)
        shares = {
            name: statistics.median(clock[name] / clock[""] for clock in clocks)
            for name in (RUNNING, READING, CHOOSING, DELIVERING)
        }
        shares["rest"] = 1 - sum(shares.values())
        parts = " | ".join(f"{share:.1%}" for share in shares.values())
        print(f"| {rows} | {beams} | {'yes' if short else 'no'} | {1e3 * total:.2f} | {parts} |")
    print("\n| rows | beams | words computed | whole ÷ shortlist (least-most) |\n|---|---|---|---|")
    for rows, beams in settings:
        pairs = zip(found[rows, beams, False], found[rows, beams, True], strict=True)
        print(f"| {rows} | {beams} | {statistics.median(columns[rows, beams]):.0f} | {_ratio(pairs)} |")
    for short in (False, True):
        pairs = zip(found[ROWS[-1], 1, short], found[1, 1, short], strict=True)
        how = "with" if short else "without"
        print(f"\nA step of {ROWS[-1]} rows ÷ of one, {how} a shortlist: {_ratio(pairs)}, at most {MOST_ROWS}")


def caches(bundle: Bundle, waiting: Iterator[Row], runs: int) -> None:
    """A line for each number of rows: the same rows in long and in short caches."""
    for rows in ROWS:
        models = [
            assembled(bundle, short=False, slots=rows, source_length=length, target_length=length) for length in CACHES
        ]
        pairs = []
        for _ in range(runs):
            together = list(islice(waiting, rows))
            short, long = (steps(model, together, beams=1) for model in models)
            pairs.append((long, short))
        print(
            f"\nA step of {rows} rows in caches of {CACHES[1]} ÷ of {CACHES[0]} positions: {_ratio(pairs)},"
            f" at most {MOST_CACHE}"
        )


def _ratio(pairs: "Iterator[tuple[Clock, Clock]] | Sequence[tuple[Clock, Clock]]") -> str:
    ratios = [first[""] / second[""] for first, second in pairs]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def main() -> None:
    """Print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parallel", type=Path, required=True, help="lines of a source, a tab and its translation")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("runs/steps"), help="for the model")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    bundle = without_end(prepare(options.folder, options.parallel))
    waiting = sources(bundle, options.parallel, seed=0)
    profile(bundle, waiting, options.runs)
    caches(bundle, waiting, options.runs)


if __name__ == "__main__":
    main()
