"""What callers ask for, texts and lengths drawn from a seed; and the service that they ask."""

import lzma
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from tokenizers import Tokenizer

from loadtests.client import Load, closed_loop, post
from tests.serving import Service, start, stop

ROUTE = "/v1/translation"
MAX_SOURCE_TOKENS = 32
OUTPUT_TOKENS = (5, 60)
ENDS = ".!?:;…"
"""What may end a sentence."""

QUESTION_WORDS = 8
MEDIAN_TOKENS = 120
SPREAD = 0.6
"""Standard deviation of the logarithm of a length."""
MOST_TOKENS = 384
FEWEST_TOKENS = 24


@dataclass(frozen=True, slots=True)
class Asked:
    """One text to translate into exactly `output_tokens` tokens."""

    text: str
    output_tokens: int
    beams: int

    def body(self) -> dict[str, Any]:
        """As Heedful is asked."""
        parameters = {"max_new_tokens": self.output_tokens, "num_beams": self.beams}
        return {"inputs": self.text, "parameters": {"generate_parameters": parameters}}


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a context."""

    question: str
    context: str

    def inputs(self) -> dict[str, str]:
        """As Heedful is asked."""
        return {"question": self.question, "context": self.context}


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


def draw_from(parallel: Path, tokenizer: Path, count: int, *, seed: int) -> list[Asked]:
    """Likewise, but texts are sources of a parallel text: lines of a source, a tab and its translation, `.xz` or not.

    Only those of one sentence are taken, since Heedful translates sentence by sentence.

    Raises:
        ValueError: none of them has so many tokens.
    """
    reader = Tokenizer.from_file(str(tokenizer))
    packed = parallel.read_bytes()
    lines = (lzma.decompress(packed) if parallel.suffix == ".xz" else packed).decode().splitlines()
    texts = sorted({line.partition("\t")[0].rstrip(ENDS) for line in lines})
    rng = np.random.default_rng(seed)
    rng.shuffle(texts)
    least, most = MAX_SOURCE_TOKENS // 2, MAX_SOURCE_TOKENS
    fitting = (text for text in texts if not set(text) & set(ENDS) and least <= len(reader.encode(text).ids) <= most)
    if not (found := list(islice(fitting, count))):
        raise ValueError(f"{parallel} has no source of {least} to {most} tokens")
    return [Asked(text, int(rng.integers(*OUTPUT_TOKENS)), 1) for text in islice(cycle(found), count)]


def draw_questions(tokenizer: Path, count: int, *, seed: int) -> list[Question]:
    """Questions of a few words; with context and special tokens lognormal lengths, none above `MOST_TOKENS`."""
    reader = Tokenizer.from_file(str(tokenizer))
    words = sorted(token for token in reader.get_vocab() if token.isascii() and token.isalpha())
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(count):
        wanted = int(min(MOST_TOKENS, max(FEWEST_TOKENS, rng.lognormal(np.log(MEDIAN_TOKENS), SPREAD))))
        question = " ".join(words[index] for index in rng.integers(len(words), size=QUESTION_WORDS))
        context = [words[index] for index in rng.integers(len(words), size=wanted)]
        while len(reader.encode(question, " ".join(context)).ids) > wanted:
            context.pop()
        drawn.append(Question(question, " ".join(context)))
    return drawn


def closed_loop_alone(
    folder: Path,
    bundle: Path,
    route: str,
    bodies: Sequence[Mapping[str, Any]],
    *,
    callers: int,
    replicas: int | None = None,
    threads: int = 1,
    slots: int | None = None,
) -> Load:
    """A closed loop on a service on Ray that is started for it and stopped after it; half of it before, to warm up.

    Args:
        replicas: one for each core unless given.
        slots: the default unless given.
    """
    more = {} if slots is None else {"slots": slots}
    with served(folder, bundle, "ray", replicas=replicas or os.cpu_count() or 1, threads=threads, **more) as service:
        asked = [post(service.url + route, body) for body in bodies]
        closed_loop(service.url, asked[: len(asked) // 2], callers=callers)
        return closed_loop(service.url, asked, callers=callers)


@contextmanager
def served(
    folder: Path, bundle: Path, runtime: str, *, replicas: int | None, threads: int = 1, **more: Any
) -> Iterator[Service]:
    """`heedful serve` with one bundle, ready; stopped at the end.

    Args:
        replicas: None where further settings scale them.
        more: settings.
    """
    config = folder / f"{bundle.name}-{runtime}.yaml"
    models = [{"bundle": str(bundle.resolve())}]
    settings = {"models": models, "threads": threads, "log_level": "warning", **more}
    if replicas is not None:
        settings["replicas"] = replicas
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    service = start(runtime, config.with_suffix(".log"), "--config", str(config))
    try:
        yield service
    finally:
        stop(service)
