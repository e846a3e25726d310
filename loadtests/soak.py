"""Whether memory stays flat under full load: the resident size of every process of the service, over the minutes.

    python -m loadtests.soak [--minutes 10] [--runtime ray|embedded] [--bundle DIR…] [--out runs/soak.json]

As many callers as the model has slots ask for the whole time, a third of them for streams that they leave midway. The
slope is fitted to the last two thirds, so that caches which fill at first do not count; flat is a slope below 1 % of
the memory an hour, or one that twice its own standard error cannot tell from that.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import matplotlib as mpl
import numpy as np
import psutil
import yaml
from matplotlib.figure import Figure

from loadtests.bars import hardware, markdown
from service.settings import EMBEDDED_BUNDLES
from tests.serving import Service, start, stop

CALLERS = 32
SAMPLE_S = 5.0
LEAST_MINUTES = 0.5
WARM_SHARE = 1 / 3
FLAT_SHARE_PER_HOUR = 0.01
STREAM_SHARE = 1 / 3
WRITING = ("translation", "summarization")


@dataclass(frozen=True, slots=True)
class Slope:
    """Bytes an hour, with the standard error, beside the bytes that there are.

    Args:
        bytes_: the median over the time that counts.
    """

    bytes_: float
    per_hour: float
    error_per_hour: float

    @property
    def is_flat(self) -> bool:
        """Whether growth beyond the threshold is not shown."""
        return self.per_hour - 2 * self.error_per_hour < FLAT_SHARE_PER_HOUR * self.bytes_


def slope(seconds: Sequence[float], sizes: Sequence[float]) -> Slope:
    """A line through the sizes by least squares, after the share that counts as warming up.

    Raises:
        ValueError: fewer than three samples are left.
    """
    first = int(len(seconds) * WARM_SHARE)
    hours, kept = np.asarray(seconds[first:]) / 3600, np.asarray(sizes[first:], float)
    if len(hours) < 3:
        raise ValueError(f"a slope needs at least 3 samples after the first third, got {len(hours)}")
    per_hour, start_ = np.polyfit(hours, kept, 1)
    residuals = kept - (per_hour * hours + start_)
    spread = np.sqrt(np.sum(residuals**2) / (len(hours) - 2) / np.sum((hours - hours.mean()) ** 2))
    return Slope(float(np.median(kept)), float(per_hour), float(spread))


class Samples:
    """Resident bytes of every process of a service; processes of one name are told apart by their id.

    A process keeps the name that it was first seen with: Ray's change theirs with what they do.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._began = time.monotonic()
        self.seconds: list[float] = []
        self.total: list[int] = []
        self._names: dict[int, str] = {}
        self.by_process: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)

    def take(self) -> None:
        """One sample of all."""
        now, total = time.monotonic() - self._began, 0
        for process in (root := psutil.Process(self._service.process.pid), *root.children(recursive=True)):
            try:
                size = process.memory_info().rss
                name = f"{' '.join(process.cmdline()[:1]) or process.name()} {process.pid}"
            except psutil.NoSuchProcess:
                continue
            total += size
            self.by_process[self._names.setdefault(process.pid, Path(name).name)].append((now, size))
        self.seconds.append(now)
        self.total.append(total)


@dataclass(slots=True)
class Counts:
    """What the callers saw."""

    answered: int = 0
    left: int = 0
    failed: int = 0


async def load(url: str, examples: Mapping[str, Any], until: float, samples: Samples) -> Counts:
    """Callers ask every task in turn until the time is over, while memory is sampled."""
    counts = Counts()

    async def caller(http: httpx.AsyncClient, seed: int) -> None:
        rng = random.Random(seed)  # noqa: S311 - which request comes next is no secret
        while time.monotonic() < until:
            task = rng.choice(sorted(examples))
            try:
                if task in WRITING and rng.random() < STREAM_SHARE:
                    await _leave_midway(http, task, {**examples[task], "stream": True})
                    counts.left += 1
                else:
                    (await http.post(f"/v1/{task}", json=_different(examples[task], rng))).raise_for_status()
                    counts.answered += 1
            except httpx.HTTPError:
                counts.failed += 1

    async def sample() -> None:
        while time.monotonic() < until:
            samples.take()
            await asyncio.sleep(SAMPLE_S)

    limits = httpx.Limits(max_connections=CALLERS)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as http:
        await asyncio.gather(sample(), *(caller(http, seed) for seed in range(CALLERS)))
    return counts


async def _leave_midway(http: httpx.AsyncClient, task: str, body: Any) -> None:
    async with http.stream("POST", f"/v1/{task}", json=body) as answer:
        answer.raise_for_status()
        async for _ in answer.aiter_lines():
            return


def _different(example: Any, rng: random.Random) -> Any:
    """The example with one of its texts longer, so that lengths vary."""
    inputs = example["inputs"]
    if isinstance(inputs, str):
        return {**example, "inputs": " ".join([inputs] * rng.randint(1, 4))}
    if "context" in inputs:
        return {**example, "inputs": {**inputs, "context": " ".join([inputs["context"]] * rng.randint(1, 8))}}
    return example


def draw(samples: Samples, out: Path) -> None:
    """The memory of all processes, and of the largest ones."""
    mpl.rcParams["svg.hashsalt"] = "heedful"
    figure = Figure(figsize=(7.0, 3.5), layout="constrained")
    axes = figure.subplots()
    minutes = [second / 60 for second in samples.seconds]
    axes.plot(minutes, [size / 2**20 for size in samples.total], label="all processes", linewidth=2)
    largest = sorted(samples.by_process.items(), key=lambda entry: -max(size for _, size in entry[1]))[:4]
    for name, sizes in largest:
        axes.plot([second / 60 for second, _ in sizes], [size / 2**20 for _, size in sizes], label=name[:40])
    axes.set_xlabel("minutes")
    axes.set_ylabel("resident memory, MiB")
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(out, format="svg", metadata={"Date": None})


def main() -> None:
    """Load the service, and print how its memory went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=_minutes, default=10)
    parser.add_argument("--runtime", choices=("ray", "embedded"), default="ray")
    parser.add_argument("--bundle", type=Path, nargs="*", help="what is served; else the embedded models")
    parser.add_argument("--out", type=Path, default=Path("runs/soak.json"), help="samples; a picture beside it")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    bundles = options.bundle or sorted(EMBEDDED_BUNDLES.iterdir())
    config = options.out.with_suffix(".yaml")
    models = [{"bundle": str(bundle.resolve())} for bundle in bundles]
    config.write_text(yaml.safe_dump({"models": models, "log_level": "warning"}), encoding="utf-8")
    print(f"{options.minutes:g} minutes at {CALLERS} callers; {hardware()}", flush=True)
    service = start(options.runtime, options.out.with_suffix(".log"), "--config", str(config))
    try:
        with httpx.Client(base_url=service.url, timeout=60) as http:
            examples = {card["task"]: card["example"] for card in http.get("/v1/models").json()}
        samples = Samples(service)
        counts = asyncio.run(load(service.url, examples, time.monotonic() + 60 * options.minutes, samples))
    finally:
        stop(service)
    options.out.write_text(json.dumps({"seconds": samples.seconds, "total": samples.total, **samples.by_process}))
    draw(samples, options.out.with_suffix(".svg"))
    sys.exit(_verdict(samples, counts))


def _minutes(given: str) -> float:
    if not (minutes := float(given)) >= LEAST_MINUTES:
        raise argparse.ArgumentTypeError(f"at least {LEAST_MINUTES:g}, for a line through the samples, got {given}")
    return minutes


def _verdict(samples: Samples, counts: Counts) -> int:
    lines = []
    for name, entries in (
        ("all processes", list(zip(samples.seconds, samples.total, strict=True))),
        *samples.by_process.items(),
    ):
        if len(entries) < len(samples.seconds):
            continue  # it came or went meanwhile
        found = slope([second for second, _ in entries], [size for _, size in entries])
        lines.append((found, name))
    told = [
        (
            name,
            f"{found.bytes_ / 2**20:,.0f} MiB",
            f"{found.per_hour / 2**20:+,.1f} ± {2 * found.error_per_hour / 2**20:,.1f} MiB/h",
            "flat" if found.is_flat else "grows",
        )
        for found, name in sorted(lines, key=lambda line: -line[0].bytes_)
    ]
    print(markdown(("process", "resident", "slope", "verdict"), told))
    print(f"{counts.answered:,} answered, {counts.left:,} streams left midway, {counts.failed:,} failed")
    whole = next(found for found, name in lines if name == "all processes")
    return 0 if whole.is_flat and not counts.failed else 1


if __name__ == "__main__":
    main()
