"""The GPU that this process computes on, as NVIDIA's management library (NVML) sees it, and how much of it is ours."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

try:
    import pynvml
except ModuleNotFoundError:  # it comes with the extra `gpu`
    pynvml = None


@dataclass(frozen=True, slots=True, eq=False)
class Gpu:
    """One card.

    Args:
        name: its number or UUID, as `CUDA_VISIBLE_DEVICES` has it.
        handle: NVML's.
    """

    name: str
    handle: Any

    @property
    def memory_total_bytes(self) -> int:
        """All that the card has."""
        return int(pynvml.nvmlDeviceGetMemoryInfo(self.handle).total)

    def memory_used_bytes(self) -> float:
        """What is in use, by whomever; NaN where the card does not tell."""
        try:
            return float(pynvml.nvmlDeviceGetMemoryInfo(self.handle).used)
        except pynvml.NVMLError:
            return float("nan")

    def utilization_ratio(self) -> float:
        """The part of the last moment in which anything computed, 0 to 1; NaN where the card does not tell."""
        try:
            return float(pynvml.nvmlDeviceGetUtilizationRates(self.handle).gpu) / 100
        except pynvml.NVMLError:
            return float("nan")


def visible_gpu(environment: Mapping[str, str] = os.environ) -> Gpu | None:
    """The card that CUDA calls number 0 in this process; None where there is no card, driver or library.

    Ray gives a replica its cards by `CUDA_VISIBLE_DEVICES`, empty where it reserves none.
    """
    name = environment.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0].strip()
    if pynvml is None or not name:
        return None
    try:
        pynvml.nvmlInit()
        by_number = pynvml.nvmlDeviceGetHandleByIndex
        return Gpu(name, by_number(int(name)) if name.isdecimal() else pynvml.nvmlDeviceGetHandleByUUID(name))
    except pynvml.NVMLError:
        return None


def memory_budget_bytes(total_bytes: int, num_gpus: float, gpu_memory_mb: int | None) -> int:
    """What the models of one replica may take together of a card with so many bytes.

    Args:
        num_gpus: that the replica reserves; 0 where nobody else shares the card, and of several it uses one.
        gpu_memory_mb: what the operator says, at most all of the card.
    """
    if gpu_memory_mb is not None:
        return min(gpu_memory_mb * 10**6, total_bytes)
    return int(total_bytes * min(num_gpus or 1.0, 1.0))
