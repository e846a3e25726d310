"""A GPU that fails for good, as ONNX Runtime tells it, below a real engine and real HTTP."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import onnxruntime
import pytest
import uvicorn

from service.engine import REPLACED_AFTER_S
from service.gateway import create_app
from service.hosting import LocalHost
from service.settings import EMBEDDED_BUNDLES, ModelSettings, Settings

FAILED = "[ONNXRuntimeError] : 1 : FAIL : CUDA failure {} ; GPU=0 ; file=cuda_execution_provider.cc ; line=448"
LOST, OUT_OF_MEMORY = "700: an illegal memory access was encountered", "2: out of memory"
TWO_SENTENCES = {"inputs": "Where is the station? I do not know where she lives."}


class Faults:
    """Steps before ONNX Runtime raises `error`, and how often it then does."""

    def __init__(self) -> None:
        self.error, self.after, self.times = "", 0, 0

    def check(self) -> None:
        self.after -= 1
        if self.after < 0 and self.times:
            self.times -= 1
            raise RuntimeError(FAILED.format(self.error))


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    found = Faults()
    run = onnxruntime.InferenceSession.run_with_iobinding

    def failing(*args: Any) -> None:
        found.check()
        run(*args)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run_with_iobinding", failing)
    return found


@asynccontextmanager
async def served() -> AsyncIterator[tuple[LocalHost, httpx.AsyncClient]]:
    settings = Settings(models=(ModelSettings(bundle=EMBEDDED_BUNDLES / "translation"),))
    host = LocalHost(settings)
    server = uvicorn.Server(uvicorn.Config(create_app(host, settings), log_config=None))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await host.start()
            address = f"http://127.0.0.1:{listener.getsockname()[1]}"
            async with httpx.AsyncClient(base_url=address, timeout=60) as http:
                yield host, http
        finally:
            server.should_exit = True
            await running
            host.stop()


async def test_a_lost_device_ends_the_engine_and_everybody_is_told_at_once(faults: Faults) -> None:
    async with served() as (host, http):
        faults.error, faults.after, faults.times = LOST, 4, 1_000_000
        asked = [http.post("/v1/translation", json=TWO_SENTENCES) for _ in range(5)]
        answers = [*await asyncio.gather(*asked), await http.post("/v1/translation", json=TWO_SENTENCES)]
        for answer in answers:
            assert answer.status_code == 503
            assert answer.headers["Retry-After"] == str(REPLACED_AFTER_S)
            assert answer.json()["detail"] == "translation/en-fr has lost the device that it computes on"
        assert await host.not_ready() == ["en-fr"], "which `check_health` of a replica raises for"
        assert (await http.get("/readyz")).status_code == 503
        metrics = (await http.get("/metrics")).text
        assert f'reason="device_lost",task="translation"}} {len(answers)}.0' in metrics
        assert 'heedful_ready{model="en-fr",task="translation"} 0.0' in metrics


async def test_a_device_that_lacked_memory_once_goes_on(faults: Faults) -> None:
    async with served() as (host, http):
        expected = (await http.post("/v1/translation", json=TWO_SENTENCES)).json()
        faults.error, faults.after, faults.times = OUT_OF_MEMORY, 2, 1
        answer = await http.post("/v1/translation", json=TWO_SENTENCES)
        assert (answer.status_code, answer.json()) == (200, expected)
        assert faults.times == 0
        assert await host.not_ready() == []
