"""Equal requests are computed once, by the cache alone and through a service."""

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
from pydantic import TypeAdapter

from models.explain import Unit, Weights
from models.generation import is_repeatable
from models.tasks.translation import TranslationRequest
from service.cache import ENTRY_BYTES, Cache, held_bytes, key_of
from service.contract import CacheResult
from tests.serving import start, stop
from tests.tiny import write_bundle


class Source:
    """Computes when it is let, and counts how often it began and how often it was cancelled."""

    def __init__(self) -> None:
        self.began = self.cancelled = 0
        self.let = asyncio.Event()
        self.failure: Exception | None = None

    async def compute(self) -> str:
        self.began += 1
        try:
            await self.let.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failure is not None:
            raise self.failure
        return f"answer {self.began}"


@pytest.fixture
async def source() -> AsyncIterator[Source]:
    source = Source()
    yield source
    source.let.set()


async def ask(cache: Cache[str], source: Source, callers: int) -> "list[asyncio.Task[tuple[str, CacheResult]]]":
    """So many callers with equal requests, all of them waiting."""
    tasks = [asyncio.create_task(cache.get("key", source.compute)) for _ in range(callers)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_equal_requests_under_way_are_computed_once_and_then_come_from_memory(source: Source) -> None:
    cache = Cache[str](10 * ENTRY_BYTES, len)
    waiting = await ask(cache, source, 3)
    source.let.set()
    assert await asyncio.gather(*waiting) == [("answer 1", "miss"), ("answer 1", "joined"), ("answer 1", "joined")]
    assert await cache.get("key", source.compute) == ("answer 1", "hit")
    assert source.began == 1


async def test_who_leaves_does_not_cancel_the_others_and_the_last_one_does(source: Source) -> None:
    cache = Cache[str](10 * ENTRY_BYTES, len)
    first, second = await ask(cache, source, 2)
    first.cancel()
    await asyncio.sleep(0)
    assert source.cancelled == 0
    second.cancel()
    for left in (first, second):
        with suppress(asyncio.CancelledError):
            await left
    (third,) = await ask(cache, source, 1)
    source.let.set()
    assert await third == ("answer 2", "miss")
    assert source.cancelled == 1


async def test_an_error_reaches_all_who_wait_and_is_not_kept(source: Source) -> None:
    cache = Cache[str](10 * ENTRY_BYTES, len)
    source.failure = ValueError("no")
    waiting = await ask(cache, source, 3)
    source.let.set()
    assert await asyncio.gather(*waiting, return_exceptions=True) == [source.failure] * 3
    source.failure = None
    assert await cache.get("key", source.compute) == ("answer 2", "miss")


async def test_the_longest_unused_is_forgotten_first_and_what_is_too_large_is_not_kept() -> None:
    cache = Cache[str](2 * ENTRY_BYTES + 20, len)

    async def get(key: str, answer: str = "") -> str:
        async def compute() -> str:
            return answer

        return (await cache.get(key, compute))[1]

    assert [await get(key) for key in ("a", "b", "a", "c", "a", "b")] == ["miss", "miss", "hit", "miss", "hit", "miss"]
    assert [await get("large", "x" * 2 * ENTRY_BYTES) for _ in range(2)] == ["miss", "miss"]
    assert await get("b") == "hit"


def test_an_answer_counts_for_about_the_memory_that_it_takes() -> None:
    weights = np.random.default_rng(0).random((100, 100)).round(6).tolist()
    made = json.dumps({"shape": [100, 100], "values": weights})
    units = json.dumps([{"text": f"word {number}", "start": number, "end": number + 300} for number in range(1000)])
    for build in (lambda: Weights.model_validate_json(made), lambda: TypeAdapter(list[Unit]).validate_json(units)):
        tracemalloc.start()
        answer = build()
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert held_bytes(answer) == pytest.approx(taken, rel=0.25)


def test_keys_are_equal_for_equal_requests_and_sampling_without_a_seed_has_no_repeatable_answer() -> None:
    def request(**parameters: object) -> TranslationRequest:
        return TranslationRequest.model_validate({"inputs": ["a"], "parameters": {"generate_parameters": parameters}})

    assert key_of(request(num_beams=2)) == key_of(request(num_beams=2, seed=None))
    assert key_of(request()) != key_of(request(num_beams=2))
    assert is_repeatable(request())
    assert is_repeatable(request(do_sample=True, seed=0))
    assert not is_repeatable(request(do_sample=True))


async def test_a_service_computes_equal_requests_once_and_says_so(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundles" / "slow", "slow", products=20)
    service = start("embedded", tmp_path / "log", HEEDFUL_CACHE_MB="1", HEEDFUL_BUNDLES=str(tmp_path / "bundles"))
    body = {"inputs": {"history": ["i1", "i2"]}, "parameters": {"top_k": 2}}
    try:
        async with httpx.AsyncClient(base_url=service.url, timeout=60) as http:

            async def post() -> httpx.Response:
                return await http.post("/v1/recommendation", json=body)

            leaves, *stay = [asyncio.create_task(post()) for _ in range(4)]
            await asyncio.sleep(0.1)
            leaves.cancel()
            answers = await asyncio.gather(*stay)
            again = await post()
            metrics = (await http.get("/metrics")).text
    finally:
        stop(service)
    assert {answer.text for answer in answers} == {again.text}
    assert [answer.headers["x-cache"] for answer in answers].count("joined") >= 2
    assert again.headers["x-cache"] == "hit"
    assert 'heedful_cache_total{model="slow",result="hit",task="recommendation"} 1.0' in metrics
    assert 'heedful_step_rows_count{model="slow",task="recommendation"} 2.0' in metrics, "the example and one request"
