"""Where solutions go on: in the caller's loop, or beside it when they have much to do."""

import threading
from collections.abc import Callable

import numpy as np
import pytest

from models.task import Row, Solution
from service.engine import LOOP_TOKENS, Engine
from tests.service.countdown import Countdown


def of(tokens: int) -> Row:
    """A row of so many tokens that is done in one step."""
    return Row(np.array([1, *[0] * (tokens - 1)], np.int64))


@pytest.mark.parametrize(("rows", "beside"), [(2, False), (3, True)])
async def test_what_many_rows_bring_is_put_together_in_a_thread(
    make: Callable[..., Engine], rows: int, *, beside: bool
) -> None:
    def noting() -> Solution[list[bool]]:
        read = threading.current_thread() is not loop
        yield [of(LOOP_TOKENS // 2)] * rows
        joined = threading.current_thread() is not loop
        yield [of(2)]
        return [read, joined, threading.current_thread() is not loop]

    loop = threading.current_thread()
    answer, _ = await make(Countdown()).answer(noting())
    assert answer == [False, beside, beside]
