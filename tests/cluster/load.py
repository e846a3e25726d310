"""A constant load, counted where it counts: on the client's side, as answered, cleanly refused or lost."""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import httpx

CALLERS = 6

logger = logging.getLogger(__name__)


@dataclass
class Tally:
    """What became of the requests.

    Args:
        answers: how often each body came with a 200.
        refused: how often each status came with `Retry-After`.
        lost: everything else, with what was seen of it.
        longest_s: how long the slowest answer took.
    """

    answers: Counter[str] = field(default_factory=Counter)
    refused: Counter[int] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    longest_s: float = 0.0

    @property
    def answered(self) -> int:
        return sum(self.answers.values())


@contextlib.asynccontextmanager
async def constant_load(url: str, body: object, *, callers: int = CALLERS) -> AsyncGenerator[Tally]:
    """So many callers, each with one request after the other, until the block ends and all are answered."""
    tally, ended = Tally(), asyncio.Event()

    async def caller(client: httpx.AsyncClient) -> None:
        while not ended.is_set():
            await _once(client, url, body, tally)
            await asyncio.sleep(0.02)

    async with httpx.AsyncClient(timeout=60) as client:
        tasks = [asyncio.create_task(caller(client)) for _ in range(callers)]
        try:
            yield tally
        finally:
            ended.set()
            await asyncio.gather(*tasks)
            refused, lost = tally.refused.total(), tally.lost
            said = "%d answered, the slowest after %.1f s, %d refused, %d lost: %s"
            logger.info(said, tally.answered, tally.longest_s, refused, len(lost), lost[:CALLERS])


async def _once(client: httpx.AsyncClient, url: str, body: object, tally: Tally) -> None:
    asked = time.monotonic()
    try:
        answer = await client.post(url, json=body)
    except httpx.HTTPError as error:
        tally.lost.append(repr(error))
        return
    if answer.status_code == 200:
        tally.answers[answer.text] += 1
        tally.longest_s = max(tally.longest_s, time.monotonic() - asked)
    elif answer.status_code in {429, 503} and int(answer.headers.get("retry-after", 0)) >= 1:
        tally.refused[answer.status_code] += 1
    else:
        tally.lost.append(f"{answer.status_code} {answer.text[:200]}")
