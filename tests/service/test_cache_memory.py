"""What the cache keeps takes the memory that it counts, however many rows an answer has."""

import gc
import sys
import time
from types import ModuleType
from typing import Any

from models.tasks import TASKS
from service.hosting import Call, LocalHost
from service.settings import ModelSettings, Settings
from tests.models.embedded import TRANSLATION

SENTENCES = 200


def taken(kept: Any) -> int:
    """The memory of an object and of all that hangs on it, each once."""
    seen: dict[int, Any] = {}
    waiting = [kept]
    while waiting:
        each = waiting.pop()
        if id(each) not in seen and not isinstance(each, type | ModuleType):
            seen[id(each)] = each
            waiting += gc.get_referents(each)
    return sum(map(sys.getsizeof, seen.values()))


async def test_an_answer_of_many_rows_is_kept_without_the_pace_of_each() -> None:
    host = LocalHost(Settings(models=(ModelSettings(bundle=TRANSLATION),), cache_mb=1))
    await host.start()
    try:
        (card,) = host.cards
        request = TASKS[card.task].request_type.model_validate(
            {"inputs": "Yes. " * SENTENCES, "parameters": {"generate_parameters": {"max_new_tokens": 3}}}
        )
        _, timing = await host.answer(Call(card, request, time.monotonic() + 600))
        cache = host._running[card.routes].cache
        assert cache is not None
        ((answer, size),) = cache._kept.values()
        assert taken(answer) <= size
        labels = {"task": card.task, "model": card.name}
        name = "heedful_time_per_output_token_seconds_count"
        assert (host._registry.get_sample_value(name, labels) or 0) >= SENTENCES
        assert timing.decode_s > 0
    finally:
        host.stop()
