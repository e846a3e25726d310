"""BentoML with adaptive batching, a worker process for each core; run by `bentoml serve`."""

from typing import Any

import bentoml

from loadtests.peers.engines import MOST_TOGETHER, engine, workers


@bentoml.service(workers=workers(), traffic={"timeout": 120})
class Service:
    """A request brings a list of one body; BentoML joins the lists of several requests."""

    def __init__(self) -> None:
        self._compute = engine()

    @bentoml.api(batchable=True, max_batch_size=MOST_TOGETHER, max_latency_ms=60_000)  # type: ignore[untyped-decorator] # not among our own dependencies
    def answer(self, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return self._compute(bodies)
