"""What the peers' servers compute with: the same models as Heedful, a batch at a time, from environment variables.

Translation goes through CTranslate2 in int8, question answering through the very graph that Heedful serves, in batches
without padding. Each answer has the length that was asked for, and leaves CTranslate2's batch then, as it would at its
end token.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import ctranslate2
from tokenizers import Tokenizer

from models.load import Loaded, load
from models.offline import answer_all

Answer = Callable[[Sequence[Mapping[str, Any]]], list[dict[str, Any]]]
"""Takes the bodies of several requests and returns the bodies of their answers, in their order; from any thread."""

TASK, FOLDER, PORT, WORKERS = "PEER_TASK", "PEER_FOLDER", "PEER_PORT", "PEER_WORKERS"
MOST_TOGETHER = 32
WAIT_S = 0.01
"""How long a batcher waits for more, which is the default of most."""


def port() -> int:
    """Where a server is to listen."""
    return int(os.environ[PORT])


def workers() -> int:
    """How many processes or threads a server may compute in."""
    return int(os.environ[WORKERS])


def engine(*, side_by_side: int = 1) -> Answer:
    """What computes, one thread for each batch.

    Args:
        side_by_side: batches that are computed at the same time, when as many threads ask.
    """
    folder = Path(os.environ[FOLDER])
    if os.environ[TASK] == "echo":
        return lambda bodies: [{"inputs": body["inputs"]} for body in bodies]
    return {"translation": _translation, "question-answering": _question_answering}[os.environ[TASK]](
        folder, side_by_side
    )


def _translation(folder: Path, side_by_side: int) -> Answer:
    translator = ctranslate2.Translator(
        str(folder / "ctranslate2-int8"), compute_type="int8", inter_threads=side_by_side, intra_threads=1
    )
    tokenizer = Tokenizer.from_file(str(folder / "checkpoint" / "tokenizer.json"))

    def answer(bodies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        lengths = [body["output_tokens"] for body in bodies]
        results = translator.translate_batch(
            [tokenizer.encode(body["text"]).tokens for body in bodies],
            beam_size=1,
            max_decoding_length=max(lengths),
            min_decoding_length=max(lengths),
            callback=lambda step: bool(step.step + 1 >= lengths[step.batch_id]),
        )
        known = tokenizer.token_to_id
        return [
            {"translation_text": tokenizer.decode([known(token) or 0 for token in result.hypotheses[0]])}
            for result in results
        ]

    return answer


def _question_answering(folder: Path, side_by_side: int) -> Answer:
    idle: SimpleQueue[Loaded] = SimpleQueue()
    for _ in range(side_by_side):
        idle.put(load(folder / "bundle-question-answering"))

    def answer(bodies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        loaded = idle.get()
        try:
            requests = [loaded.task.request_type.model_validate({"inputs": body}) for body in bodies]
            return [found.model_dump() for found in answer_all(loaded, requests)]
        finally:
            idle.put(loaded)

    return answer
