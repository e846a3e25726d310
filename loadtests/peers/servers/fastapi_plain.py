"""FastAPI without batching: each request computes in a thread of its own, as a plain `def` endpoint does."""

from typing import Any

import uvicorn
from fastapi import FastAPI

from loadtests.peers.engines import engine, port, workers

app = FastAPI()
compute = engine(side_by_side=workers())


@app.post("/")
def answer(body: dict[str, Any]) -> dict[str, Any]:
    return compute([body])[0]


if __name__ == "__main__":
    uvicorn.run(app, port=port(), log_level="warning")
