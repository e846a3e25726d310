"""LitServe with its own batching, a worker process for each core."""

from typing import Any

import litserve

from loadtests.peers.engines import MOST_TOGETHER, WAIT_S, engine, port, workers


class Api(litserve.LitAPI):  # type: ignore[misc] # LitServe is not among our own dependencies
    """A batch is a list of bodies, of which LitServe makes one and takes it apart again."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe passes it
        self._compute = engine()

    def predict(self, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return self._compute(bodies)


if __name__ == "__main__":
    api = Api(max_batch_size=MOST_TOGETHER, batch_timeout=WAIT_S, api_path="/predict")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=workers(), timeout=120)
    server.run(host="127.0.0.1", port=port(), generate_client_file=False, log_level="warning")
