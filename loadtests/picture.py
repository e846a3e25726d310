"""Draws latency against throughput, a line for each system; equal measurements give equal bytes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from loadtests.bars import HEEDFUL, Point

_SIZE_INCHES = (10.0, 4.2)
_COLUMNS = 3


def draw(tasks: Mapping[str, Mapping[str, Sequence[Point]]], out: Path) -> None:
    """Median latency over answers per second, as callers become more.

    Args:
        tasks: the points of each system by its name, for each task.
        out: an SVG file.
    """
    mpl.rcParams["svg.hashsalt"] = "heedful"
    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    for axes, (task, systems) in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks.items(), strict=True):
        for name, points in systems.items():
            ordered = sorted(points, key=lambda point: point.callers)
            axes.plot(
                [point.per_s for point in ordered],
                [1e3 * point.p50_s for point in ordered],
                marker="o",
                markersize=4,
                label=name,
                linewidth=2.5 if name == HEEDFUL else 1.2,
                zorder=3 if name == HEEDFUL else 2,
            )
        callers = sorted({point.callers for points in systems.values() for point in points})
        axes.set_title(f"{task}, {', '.join(map(str, callers))} callers", fontsize=10)
        axes.set_xlabel("requests/s")
        axes.set_ylabel("median latency, ms")
        axes.set_yscale("log")
        axes.set_xlim(left=0)
        axes.grid(visible=True, which="both", alpha=0.25)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=_COLUMNS, frameon=False)
    figure.savefig(out, format="svg", metadata={"Date": None})
