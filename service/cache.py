"""Answers that need not be computed again: kept for later, and shared by equal requests that are under way; pure."""

import asyncio
import sys
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from service.contract import CacheResult

R = TypeVar("R")

ENTRY_BYTES = 500
"""Of Python objects for each answer, beside itself."""


def key_of(request: BaseModel) -> bytes:
    """Equal for requests that validate to the same fields, whatever was left out or how it was spelled."""
    return blake2b(request.model_dump_json().encode(), digest_size=32).digest()


def held_bytes(answer: object) -> int:
    """The memory that an answer takes, nearly: numbers and short texts take ten times what they take in JSON."""
    size = sys.getsizeof(answer)
    if isinstance(answer, BaseModel):
        return size + held_bytes(answer.__dict__) + sys.getsizeof(answer.model_fields_set)
    if isinstance(answer, dict):
        return size + sum(map(held_bytes, answer.values()))
    if isinstance(answer, list | tuple):
        return size + sum(map(held_bytes, answer))
    return size


@dataclass(slots=True, eq=False)
class _UnderWay(Generic[R]):
    task: "asyncio.Task[R]"
    waiting: int = 0


class Cache(Generic[R]):
    """Answers of one model, the longest unused forgotten first. To be asked from one event loop.

    It belongs to one loaded bundle and goes with it, so that no answer outlives the version that gave it.

    Args:
        max_bytes: the sizes of all answers together stay below it; an answer that is larger is not kept.
        size: of an answer in bytes; `ENTRY_BYTES` are added.
    """

    def __init__(self, max_bytes: int, size: Callable[[R], int]) -> None:
        self._max_bytes, self._size = max_bytes, size
        self._bytes = 0
        self._kept: OrderedDict[Hashable, tuple[R, int]] = OrderedDict()
        self._under_way: dict[Hashable, _UnderWay[R]] = {}

    async def get(self, key: Hashable, compute: Callable[[], Coroutine[Any, Any, R]]) -> tuple[R, CacheResult]:
        """The answer to the request with this key, and where it came from.

        Whoever asks while an equal request is under way waits for its answer. Who is cancelled leaves the others
        waiting; when the last one is, so is the computation. What it raises reaches all who wait, and is not kept.
        """
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key][0], "hit"
        result: CacheResult = "joined"
        if (shared := self._under_way.get(key)) is None:
            result = "miss"
            self._under_way[key] = shared = _UnderWay(asyncio.create_task(compute()))
        shared.waiting += 1
        try:
            answer = await asyncio.shield(shared.task)
        finally:
            shared.waiting -= 1
            if shared.task.done() or not shared.waiting:
                shared.task.cancel()
                if self._under_way.get(key) is shared:
                    del self._under_way[key]
        if key not in self._kept:
            self._keep(key, answer)
        return answer, result

    def _keep(self, key: Hashable, answer: R) -> None:
        size = ENTRY_BYTES + self._size(answer)
        if size > self._max_bytes:
            return
        self._kept[key] = answer, size
        self._bytes += size
        while self._bytes > self._max_bytes:
            _, (_, freed) = self._kept.popitem(last=False)
            self._bytes -= freed
