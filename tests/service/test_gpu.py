"""What is told of a GPU, by stand-ins for functions of the real library, and what where there is none."""

import math
from types import SimpleNamespace

import pynvml
import pytest
from prometheus_client import CollectorRegistry

from service.gpu import memory_budget_bytes, visible_gpu
from service.metrics import Metrics, render

CARDS = {0: "first", 1: "second", "GPU-5f3c": "second"}


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cards. Every name is one of the real library, else there is nothing to replace."""
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", CARDS.__getitem__)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", CARDS.__getitem__)
    memory = {"first": SimpleNamespace(total=80e9, used=1e9), "second": SimpleNamespace(total=40e9, used=2e9)}
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", memory.__getitem__)
    rates = {"first": SimpleNamespace(gpu=7), "second": SimpleNamespace(gpu=25)}
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", rates.__getitem__)


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize(
    ("visible", "handle"),
    [({}, "first"), ({"CUDA_VISIBLE_DEVICES": "1,0"}, "second"), ({"CUDA_VISIBLE_DEVICES": "GPU-5f3c"}, "second")],
)
def test_the_card_is_the_first_that_this_process_sees(visible: dict[str, str], handle: str) -> None:
    gpu = visible_gpu(visible)
    assert gpu is not None
    assert gpu.handle == handle
    assert visible_gpu({"CUDA_VISIBLE_DEVICES": ""}) is None, "a replica that reserves none"


@pytest.mark.usefixtures("driver")
def test_its_memory_and_utilization_are_series(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = visible_gpu({"CUDA_VISIBLE_DEVICES": "1"})
    assert gpu is not None
    registry = CollectorRegistry()
    Metrics(registry).watch_gpu(gpu)
    assert registry.get_sample_value("heedful_gpu_memory_bytes", {"gpu": "1"}) == 2e9
    assert registry.get_sample_value("heedful_gpu_utilization_ratio", {"gpu": "1"}) == 0.25

    def silent(_handle: str) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", silent)
    value = registry.get_sample_value("heedful_gpu_memory_bytes", {"gpu": "1"})
    assert value is not None
    assert math.isnan(value), "a card that is lost leaves the other series readable"


@pytest.mark.parametrize("library", [pynvml, None])
def test_without_a_card_or_its_library_there_are_no_such_series(
    monkeypatch: pytest.MonkeyPatch, library: object, caplog: pytest.LogCaptureFixture
) -> None:
    def missing() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    monkeypatch.setattr("service.gpu.pynvml", library)
    assert visible_gpu({}) is None
    registry = CollectorRegistry()
    Metrics(registry)
    assert b"gpu" not in render(registry)
    assert caplog.records == []


@pytest.mark.parametrize(
    ("num_gpus", "gpu_memory_mb", "budget"),
    [(0, None, 80e9), (0.25, None, 20e9), (1, None, 80e9), (2, None, 80e9), (0.25, 30_000, 30e9), (1, 90_000, 80e9)],
)
def test_a_replica_has_the_part_that_it_reserves_unless_told_otherwise(
    num_gpus: float, gpu_memory_mb: int | None, budget: float
) -> None:
    assert memory_budget_bytes(int(80e9), num_gpus, gpu_memory_mb) == budget
