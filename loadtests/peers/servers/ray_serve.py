"""Ray Serve's documented pattern: a FastAPI ingress that asks a deployment whose method is a `@serve.batch`.

The proxy is Ray's default one; with `RAY_SERVE_ENABLE_HA_PROXY=1` in the environment it is HAProxy.
"""

import signal
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import LoggingConfig

from loadtests.peers.engines import MOST_TOGETHER, WAIT_S, engine, port, workers

app = FastAPI()


@serve.deployment(max_ongoing_requests=2 * MOST_TOGETHER)
class Batched:
    """Holds the model and computes batches."""

    def __init__(self) -> None:
        self._compute = engine()

    @serve.batch(max_batch_size=MOST_TOGETHER, batch_wait_timeout_s=WAIT_S)
    async def __call__(self, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return self._compute(bodies)


@serve.deployment(max_ongoing_requests=1000)
@serve.ingress(app)
class Ingress:
    """Validates and answers."""

    def __init__(self, batched: DeploymentHandle[Any]) -> None:
        self._batched = batched

    @app.post("/")
    async def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        answered: dict[str, Any] = await self._batched.remote(body)
        return answered


if __name__ == "__main__":
    ray.init(address="local", include_dashboard=False)
    quiet = LoggingConfig(log_level="WARNING", enable_access_log=False)  # Heedful is measured without, too
    serve.start(http_options=HTTPOptions(port=port()), logging_config=quiet)
    replicas = {"num_replicas": workers(), "ray_actor_options": {"num_cpus": 0.5}}
    ingress = Ingress.options(ray_actor_options={"num_cpus": 0.1})  # type: ignore[attr-defined]
    serve.run(ingress.bind(Batched.options(**replicas).bind()))  # type: ignore[attr-defined]
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()  # type: ignore[no-untyped-call]
    ray.shutdown()
