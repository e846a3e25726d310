"""How many users there are at each moment of a load test: pure functions of the time, from 0 to 1 of the run."""

import math
from collections.abc import Callable

Shape = Callable[[float], float]


def steady(_progress: float) -> float:
    """All users all the time."""
    return 1.0


def step(progress: float) -> float:
    """A fifth of the users, then two, up to all: where the response time bends is the capacity."""
    return min(5, int(progress * 5) + 1) / 5


def spike(progress: float) -> float:
    """A fifth of the users, and all of them in the middle fifth of the run."""
    return 1.0 if 0.4 <= progress < 0.6 else 0.2


def diurnal(progress: float) -> float:
    """A day with its night: from a tenth of the users at the start and the end to all of them in the middle."""
    return 0.1 + 0.9 * math.sin(math.pi * progress) ** 2


def soak(progress: float) -> float:
    """Four fifths of the users after a slow start, for hours: what grows then, leaks."""
    return min(0.8, 8 * progress)


SHAPES: dict[str, Shape] = {"steady": steady, "step": step, "spike": spike, "diurnal": diurnal, "soak": soak}


def users_at(shape: str, progress: float, most: int) -> int:
    """Users at a moment of the run, at least 1.

    Args:
        shape: one of `SHAPES`.
        progress: of the run, from 0 to 1.
        most: users at the peak.
    """
    return max(1, round(most * SHAPES[shape](progress)))
