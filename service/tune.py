"""How many tokens one pass of a model should take on this machine: measured, and kept in the bundle's manifest."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.bundle import MANIFEST, Device, Precision
from models.errors import BundleError
from models.load import Loaded, device, load
from models.offline import compute
from models.task import Generation, Row
from models.tasks import TASKS
from service.errors import UsageError

BUDGETS = (128, 256, 512, 1024, 2048)
GOOD_ENOUGH = 0.97
"""Of the best throughput. A smaller budget lets those who run or wait go on sooner."""
ROWS = 64
MEDIAN_TOKENS, SPREAD = 120, 0.6
"""Lengths are drawn lognormal, as far as the model's limit."""
NEW_TOKENS = 8
"""That a generating row writes: the budget is about its source alone."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """Source tokens per second with each budget, and the budget chosen."""

    device: Device
    budget_tokens: int
    tokens_per_s: Mapping[int, float]

    def sentence(self, bundle: Path) -> str:
        """For the terminal."""
        found = ", ".join(f"{budget}: {speed:,.0f}" for budget, speed in self.tokens_per_s.items())
        return (
            f"tokens per second by tokens of one pass: {found}. {self.budget_tokens} on {self.device} is kept in"
            f" {bundle / MANIFEST}: the least within {1 - GOOD_ENOUGH:.0%} of the best"
        )


def tune(bundle: Path, precision: Precision, *, slots: int, threads: int, seconds: float) -> Tuned:
    """Measure every budget with the same rows, in turn.

    Args:
        slots: rows that a generating model decodes side by side.
        seconds: for all budgets together, about; each is measured at least once.

    Raises:
        BundleError: the bundle is broken.
    """
    models = {
        budget: load(bundle, precision=precision, slots=slots, threads=threads, budget_tokens=budget)
        for budget in BUDGETS
    }
    rows = _rows(models[BUDGETS[0]])
    tokens = sum(len(row.tokens) for row in rows)
    best_s = dict.fromkeys(BUDGETS, float("inf"))
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or min(best_s.values()) == float("inf"):
        for budget, loaded in models.items():
            started = time.perf_counter()
            compute(loaded.model, rows)
            best_s[budget] = min(best_s[budget], time.perf_counter() - started)
    speeds = {budget: tokens / taken_s for budget, taken_s in best_s.items()}
    chosen = min(budget for budget, speed in speeds.items() if speed >= GOOD_ENOUGH * max(speeds.values()))
    return Tuned(device(), chosen, speeds)


def store(bundle: Path, tuned: Tuned) -> None:
    """Put the budget into the manifest, for this kind of device alone.

    Raises:
        UsageError: the manifest cannot be written.
    """
    path = bundle / MANIFEST
    manifest = json.loads(path.read_bytes())
    manifest["budget_tokens"] = {**manifest.get("budget_tokens", {}), tuned.device: tuned.budget_tokens}
    making = path.with_suffix(".making")
    try:
        making.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        making.replace(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}; copy the bundle to where it can") from None


def _rows(loaded: Loaded) -> Sequence[Row]:
    """The example's tokens over and over, in lengths as callers have them.

    Raises:
        BundleError: the example makes no rows.
    """
    manifest = loaded.bundle.manifest
    asked = next(loaded.task.solve(TASKS[manifest.task].request_type.model_validate(manifest.example)), ())
    if not asked:
        raise BundleError(f"{loaded.bundle.folder}: its example gives the model nothing to compute")
    row = asked[0]
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(MEDIAN_TOKENS), SPREAD, ROWS), 2, manifest.limits.max_tokens).astype(int)
    generation = row.generation and Generation(max_new_tokens=min(NEW_TOKENS, manifest.limits.max_new_tokens))
    return [
        Row(
            np.resize(row.tokens, length),
            None if row.segments is None else np.resize(row.segments, length),
            generation,
        )
        for length in lengths.tolist()
    ]
