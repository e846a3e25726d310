"""Draws which rows a real model decodes at which step, beside what fixed batches of the same rows would take.

example: python -m docs.timeline --out docs/timeline.svg
"""

import argparse
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

import models
from models.load import load
from models.task import Row
from models.tasks.translation import TranslationRequest

SLOTS = 4
BUNDLE = Path(models.__file__).parent / "bundles" / "translation"
SENTENCES = (
    "Thank you.",
    "I do not know where she lives, but my brother has her address.",
    "Where is the station?",
    "Good morning.",
    "The weather was so bad that we stayed at home all day.",
    "He is tall.",
    "Can you help me find my keys?",
    "She said that she would come tomorrow if it did not rain.",
    "Wait!",
    "My father works in a hospital near the river.",
)


def continuous(slots: int) -> list[tuple[int, int]]:
    """The steps from which and to which each sentence runs, as the model decodes them."""
    loaded = load(BUNDLE, slots=slots)
    rows = [_row(loaded.task.solve(TranslationRequest.model_validate({"inputs": text}))) for text in SENTENCES]
    began: dict[int, int] = {}
    ended: dict[int, int] = {}
    step = 0
    while len(ended) < len(rows):
        joining = [index for index in range(len(rows)) if index not in began][: loaded.model.room().slots]
        if joining:
            loaded.model.admit({index: rows[index] for index in joining})
            began.update(dict.fromkeys(joining, step))
        step += 1
        ended.update({event.row: step for event in loaded.model.step() if event.finish is not None})
    return [(began[index], ended[index]) for index in range(len(rows))]


def fixed(lengths: list[int], size: int) -> list[tuple[int, int]]:
    """The same where `size` rows start together and the next ones wait until the longest has ended."""
    steps, start = [], 0
    for first in range(0, len(lengths), size):
        batch = lengths[first : first + size]
        steps += [(start, start + length) for length in batch]
        start += max(batch)
    return steps


def _row(solution: object) -> Row:
    (row,) = next(solution)  # type: ignore[call-overload]
    return row  # type: ignore[no-any-return]


def draw(out: Path) -> None:
    """Both timelines one above the other; equal rows give equal bytes."""
    joined = continuous(SLOTS)
    batched = fixed([end - start for start, end in joined], SLOTS)
    mpl.rcParams["svg.hashsalt"] = "heedful"
    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    for axes, steps, name in (
        (upper, joined, "rows join as others leave"),
        (lower, batched, "fixed batches, computed from the same lengths"),
    ):
        free = [0] * SLOTS
        for index, (start, end) in enumerate(steps):
            slot = index % SLOTS if axes is lower else free.index(min(free))
            free[slot] = end
            axes.barh(slot, end - start, left=start, height=0.8, color=f"C{index}", edgecolor="white")
            axes.text((start + end) / 2, slot, str(index + 1), ha="center", va="center", color="white", fontsize=9)
        axes.set_title(f"{name}: {max(end for _, end in steps)} steps", fontsize=10, loc="left")
        axes.set_yticks(range(SLOTS), [f"slot {slot}" for slot in range(SLOTS)])
        axes.invert_yaxis()
    lower.set_xlabel("steps of the decoder")
    figure.savefig(out, format="svg", metadata={"Date": None})


def main() -> None:
    """Draw the timelines of ten sentences in four slots."""
    parser = argparse.ArgumentParser(prog="python -m docs.timeline", description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="SVG file")
    draw(parser.parse_args().out)


if __name__ == "__main__":
    main()
