"""What the load tests make of their samples: verdicts beside bars, and whether memory is flat."""

import random
from pathlib import Path

import pytest

from loadtests.bars import Measured
from loadtests.results import Results
from loadtests.soak import slope

MIB = 2**20


@pytest.mark.parametrize(
    ("ratios", "bar", "at_least", "verdict"),
    [
        ((1.0, 1.2, 1.1), 1.1, True, "pass"),
        ((1.0, 0.8, 0.88), 1.1, True, "short by 20%"),
        ((1.0, 3.0, 1.9), 2, False, "pass"),
        ((3.0, 3.0, 1.0), 2, False, "short by 50%"),
        ((0.1,), None, True, "-"),
    ],
)
def test_the_median_stands_beside_the_bar(
    ratios: tuple[float, ...], bar: float | None, at_least: bool, verdict: str
) -> None:
    assert Measured("a", ratios, bar, at_least, "x", "y").cells()[5] == verdict


def test_results_of_parts_are_kept_from_run_to_run_and_written_between_the_marks(tmp_path: Path) -> None:
    line = Measured("a measured thing", (1.0, 2.0, 3.0), 1.5, True, "2 requests/s", "1 requests/s, another", 0.25)
    order = ("first", "second", "not measured")
    Results(tmp_path / "bench.json", order).keep("second", [line], {}, runs=3, share=1)
    results = Results(tmp_path / "bench.json", order)
    results.keep("first", [line], {}, runs=3, share=1)
    (tmp_path / "performance.md").write_text("before\n<!-- bench -->\nold\n<!-- /bench -->\nafter\n")
    results.write(tmp_path)
    page = (tmp_path / "performance.md").read_text()
    assert (
        page.count("| a measured thing | 2 requests/s | 1 requests/s, another | 2.00 (1.00-3.00) | ≥ 1.5 | pass |") == 2
    )
    assert page.startswith("before\n") and page.endswith("after\n") and "old" not in page  # noqa: PT018


def test_a_leak_is_told_from_noise_and_from_what_fills_up_at_first() -> None:
    rng = random.Random(0)
    seconds = [5.0 * sample for sample in range(120)]
    full = [min(second, 100) * MIB + 500 * MIB + rng.gauss(0, MIB) for second in seconds]
    leaking = [size + second / 60 * MIB for second, size in zip(seconds, full, strict=True)]
    assert slope(seconds, full).is_flat
    found = slope(seconds, leaking)
    assert not found.is_flat
    assert found.per_hour == pytest.approx(60 * MIB, rel=0.2)
