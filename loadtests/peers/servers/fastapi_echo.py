"""The least that a typed FastAPI service can be: it answers what it is sent, in one process under uvicorn."""

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from loadtests.peers.engines import port

app = FastAPI()


class Echo(BaseModel):
    """What is sent, and what comes back."""

    inputs: str


@app.post("/")
async def answer(body: Echo) -> Echo:
    return body


if __name__ == "__main__":
    uvicorn.run(app, port=port(), log_level="warning")
