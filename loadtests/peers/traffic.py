"""What callers ask for: texts and output lengths drawn from a seed, and callers who each wait for their answer."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import psutil
import yaml
from tokenizers import Tokenizer

from tests.serving import Service, start, stop

MAX_SOURCE_TOKENS = 32
OUTPUT_TOKENS = (5, 60)


@dataclass(frozen=True, slots=True)
class Asked:
    """One text to translate into exactly `output_tokens` tokens."""

    text: str
    output_tokens: int
    beams: int


def draw(tokenizer: Path, count: int, *, seed: int, beams: int = 1) -> list[Asked]:
    """Texts of 16 to 32 tokens, end token included, made of words that the tokenizer knows, without full stops."""
    reader = Tokenizer.from_file(str(tokenizer))
    words = sorted(token[1:] for token in reader.get_vocab() if token[1:].isascii() and token[1:].isalpha())
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(count):
        wanted = int(rng.integers(MAX_SOURCE_TOKENS // 2, MAX_SOURCE_TOKENS + 1))
        text = words[rng.integers(len(words))]
        while len(reader.encode(longer := f"{text} {words[rng.integers(len(words))]}").ids) <= wanted:
            text = longer
        low, high = OUTPUT_TOKENS
        drawn.append(Asked(text, int(rng.integers(low, high + 1)), beams))
    return drawn


@contextmanager
def served(folder: Path, bundle: Path, runtime: str, *, replicas: int) -> Iterator[Service]:
    """`heedful serve` with one bundle, ready; stopped at the end."""
    config = folder / f"{bundle.name}-{runtime}.yaml"
    settings = {"models": [{"bundle": str(bundle.resolve())}], "replicas": replicas, "log_level": "warning"}
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    service = start(runtime, config.with_suffix(".log"), "--config", str(config))
    try:
        yield service
    finally:
        stop(service)


@dataclass(frozen=True, slots=True)
class Served:
    """What a run over HTTP took: wall seconds, and processor seconds of the client alone."""

    wall_s: float
    client_cpu_s: float


def ask(url: str, asked: Sequence[Asked], *, callers: int) -> Served:
    """So many callers ask in turn, each for the next text as soon as it has its answer."""
    return asyncio.run(_ask(url, asked, callers))


async def _ask(url: str, asked: Sequence[Asked], callers: int) -> Served:
    waiting = iter(asked)

    async def caller(http: httpx.AsyncClient) -> None:
        for one in waiting:
            parameters = {"max_new_tokens": one.output_tokens, "num_beams": one.beams}
            body = {"inputs": one.text, "parameters": {"generate_parameters": parameters}}
            (await http.post("/v1/translation", json=body)).raise_for_status()

    limits = httpx.Limits(max_connections=callers)
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as http:
        began, cpu = time.perf_counter(), sum(psutil.Process().cpu_times()[:2])
        await asyncio.gather(*(caller(http) for _ in range(callers)))
        return Served(time.perf_counter() - began, sum(psutil.Process().cpu_times()[:2]) - cpu)
