"""FastAPI with a queue written by hand: whenever the model is free it takes all that waits, up to a batch."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI

from loadtests.peers.engines import MOST_TOGETHER, engine, port, workers

Waiting = tuple[dict[str, Any], "asyncio.Future[dict[str, Any]]"]

compute = engine(side_by_side=workers())
queue: asyncio.Queue[Waiting] = asyncio.Queue()


async def drain() -> None:
    """Compute batch after batch."""
    while True:
        waiting = [await queue.get()]
        while len(waiting) < MOST_TOGETHER and not queue.empty():
            waiting.append(queue.get_nowait())
        answers = await asyncio.to_thread(compute, [body for body, _ in waiting])
        for (_, done), answered in zip(waiting, answers, strict=True):
            done.set_result(answered)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    draining = [asyncio.create_task(drain()) for _ in range(workers())]
    yield
    for task in draining:
        task.cancel()


app = FastAPI(lifespan=lifespan)


@app.post("/")
async def answer(body: dict[str, Any]) -> dict[str, Any]:
    done: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
    await queue.put((body, done))
    return await done


if __name__ == "__main__":
    uvicorn.run(app, port=port(), log_level="warning")
