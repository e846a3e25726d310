"""Draws the learning curves of trainings, so that one sees whether more of them would have helped."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from models.train.loop import REPORT_FILE

_SIZE_INCHES = (7.0, 3.5)


def draw(checkpoints: Sequence[Path], out: Path) -> None:
    """The training loss of each checkpoint's training over its updates; equal reports give equal bytes.

    Args:
        checkpoints: directories with a training.json.
        out: an SVG file.
    """
    mpl.rcParams["svg.hashsalt"] = "heedful"
    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    axes = figure.subplots()
    for checkpoint in checkpoints:
        report = json.loads((checkpoint / REPORT_FILE).read_text(encoding="utf-8"))
        steps, losses = zip(*report["loss_curve"], strict=True)
        minutes = report["training_s"] / 60
        axes.plot(steps, losses, label=f"{report['task']}, seed {report['seed']}, {minutes:.0f} min")
    axes.set_xlabel("updates")
    axes.set_ylabel("training loss")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(out, format="svg", metadata={"Date": None})


def main(arguments: list[str] | None = None) -> None:
    """Draw the learning curves of one training or of several."""
    parser = argparse.ArgumentParser(
        prog="python -m models.train.curve",
        description=main.__doc__,
        epilog="example: python -m models.train.curve checkpoints/recommendation --out learning.svg",
    )
    parser.add_argument("checkpoints", type=Path, nargs="+", help="checkpoint directories with a training.json")
    parser.add_argument("--out", type=Path, required=True, help="SVG file")
    options = parser.parse_args(arguments)
    draw(options.checkpoints, options.out)


if __name__ == "__main__":
    main()
