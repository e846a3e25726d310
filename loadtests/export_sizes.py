"""How long exporting checkpoints of real size takes, how much memory, and how large the bundles are.

    python -m loadtests.export_sizes [MODEL…] [--precision fp32|fp16|int8|all] [--runs 3]

Each export is a `heedful export` of its own. Time is that of the whole command, with the start of the interpreter and
of torch; processor time beside it tells how far other programs were in the way. Memory is the largest resident set of
that process (ru_maxrss), in which pages of mapped files count; beside it stands that of a process that only imports
what the exporter does. Medians of the runs.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from loadtests.checkpoints import MODELS

PRECISIONS = ("fp32", "fp16", "int8")
IMPORTS = [sys.executable, "-c", "import models.export.write"]


@dataclass(frozen=True, slots=True)
class Run:
    """One process, in seconds and bytes."""

    seconds: float
    cpu_seconds: float
    peak: float


def measure(command: list[str]) -> Run:
    """Run to the end; what it says is shown only where it fails."""
    began = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{said.read().decode()}")
    return Run(time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def _export(checkpoint: Path, task: str, precision: str, out: Path) -> list[str]:
    languages = ["--source-language", "en", "--target-language", "de" if task == "translation" else "en"]
    options = ["--task", task, "--precision", precision, "--out", str(out), "--force"]
    return [sys.executable, "-m", "service", "export", str(checkpoint), *options, *languages]


def _bytes(folder: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(pattern))


def _median(runs: list[Run]) -> Run:
    return Run(*(statistics.median(each) for each in zip(*map(astuple, runs), strict=True)))


def main() -> None:
    """Print a Markdown table, a line as soon as it is known."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.export_sizes", description=main.__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(MODELS)}; all where none is named")
    parser.add_argument("--precision", default="all", choices=[*PRECISIONS, "all"])
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    if unknown := [name for name in options.models if name not in MODELS]:
        parser.error(f"{', '.join(unknown)} is not one of {', '.join(MODELS)}")
    baseline = _median([measure(IMPORTS) for _ in range(options.runs)])
    print(f"Imports alone: {baseline.cpu_seconds:.1f} s of processor time, {baseline.peak / 1e6:,.0f} MB\n")
    columns = ("model", "checkpoint", "precision", "time", "processor time", "peak memory", "less imports", "bundle")
    print(_line(columns), _line(["---"] * len(columns)), sep="\n")
    for name in options.models or MODELS:
        task, write = MODELS[name]
        with tempfile.TemporaryDirectory() as scratch:
            checkpoint, out = write(Path(scratch) / name), Path(scratch) / "bundle"
            size = _bytes(checkpoint, "*.safetensors")
            for precision in PRECISIONS if options.precision == "all" else (options.precision,):
                command = _export(checkpoint, task, precision, out)
                run = _median([measure(command) for _ in range(options.runs)])
                cells = (
                    name,
                    f"{size / 1e6:,.0f} MB",
                    precision,
                    f"{run.seconds:.0f} s",
                    f"{run.cpu_seconds:.0f} s",
                    f"{run.peak / 1e6:,.0f} MB",
                    f"{(run.peak - baseline.peak) / size:.1f} × checkpoint",
                    f"{_bytes(out, '**/*') / 1e6:,.0f} MB",
                )
                print(_line(cells), flush=True)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
