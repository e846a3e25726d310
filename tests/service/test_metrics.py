"""What a scrape shows."""

from itertools import pairwise
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from service.machine import memory_used_ratio
from service.metrics import PHASE_SECONDS, REQUEST_SECONDS, STEP_ROWS, Metrics, Observer, render

LABELS = {"task": "translation", "model": "en-fr"}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def observer(registry: CollectorRegistry) -> Observer:
    return Metrics(registry).observer(**LABELS)


def scrape(registry: CollectorRegistry) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(render(registry).decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(registry: CollectorRegistry, name: str, **labels: str) -> float:
    return scrape(registry)[name, frozenset((LABELS | labels).items())]


def test_requests_count_by_status_and_their_seconds_fall_into_buckets(
    registry: CollectorRegistry, observer: Observer
) -> None:
    observer.request(200, 0.2)
    observer.request(200, 0.3)
    observer.request(429, 0.001)
    assert value(registry, "heedful_requests_total", status="200") == 2
    assert value(registry, "heedful_requests_total", status="429") == 1
    assert value(registry, "heedful_request_duration_seconds_count") == 3
    assert value(registry, "heedful_request_duration_seconds_sum") == pytest.approx(0.501)
    assert value(registry, "heedful_request_duration_seconds_bucket", le="0.25") == 2


def test_the_engine_reports_phases_tokens_steps_and_refusals(registry: CollectorRegistry, observer: Observer) -> None:
    observer.phases(queue_s=0.01, encode_s=0.02, decode_s=0.3)
    observer.tokens(source=12, generated=30)
    observer.generation(first_token_s=0.2, paces_s=(0.01, 0.03))
    observer.step(16, 5)
    observer.rejected("overloaded")
    for phase, seconds in (("queue", 0.01), ("encode", 0.02), ("decode", 0.3)):
        assert value(registry, "heedful_phase_duration_seconds_sum", phase=phase) == pytest.approx(seconds)
    assert value(registry, "heedful_tokens_total", direction="source") == 12
    assert value(registry, "heedful_tokens_total", direction="generated") == 30
    assert value(registry, "heedful_time_to_first_token_seconds_sum") == pytest.approx(0.2)
    assert value(registry, "heedful_time_per_output_token_seconds_sum") == pytest.approx(0.04)
    assert value(registry, "heedful_time_per_output_token_seconds_count") == 2
    assert value(registry, "heedful_step_rows_bucket", le="8.0") == 0
    assert value(registry, "heedful_step_rows_bucket", le="16.0") == 1
    assert value(registry, "heedful_rejected_total", reason="overloaded") == 1
    assert value(registry, "heedful_padding_tokens_total") == 5


def test_gauges_are_read_when_somebody_scrapes(registry: CollectorRegistry, observer: Observer) -> None:
    running: list[int] = [1, 2, 3]
    observer.watch(running_rows=lambda: len(running), waiting_rows=lambda: 7, backlog_s=lambda: 2.5)
    assert value(registry, "heedful_running_rows") == 3
    running.clear()
    assert value(registry, "heedful_running_rows") == 0
    assert value(registry, "heedful_waiting_rows") == 7
    assert value(registry, "heedful_backlog_seconds") == 2.5


def test_what_may_happen_stands_at_0_so_that_its_first_time_is_an_increase(
    registry: CollectorRegistry, observer: Observer
) -> None:
    assert value(registry, "heedful_requests_total", status="500") == 0
    assert value(registry, "heedful_rejected_total", reason="overloaded") == 0
    assert value(registry, "heedful_ready") == 0
    observer.ready()
    assert value(registry, "heedful_ready") == 1


def test_a_process_says_what_it_takes(registry: CollectorRegistry, observer: Observer) -> None:
    found = scrape(registry)
    assert 0 < found["heedful_memory_used_ratio", frozenset()] < 1
    assert found["process_resident_memory_bytes", frozenset()] > 0


def test_memory_is_the_container_s_where_there_is_a_limit(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    250 kB\n")
    assert memory_used_ratio(meminfo, tmp_path) == 0.75
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_used_ratio(meminfo, tmp_path) == 0.75
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 400\n")
    assert memory_used_ratio(meminfo, tmp_path) == 0.5


def test_a_model_says_what_it_is(registry: CollectorRegistry, observer: Observer) -> None:
    observer.describe(version="1.2", precision="int8")
    assert value(registry, "heedful_model_info", version="1.2", precision="int8") == 1


def test_models_and_registries_are_kept_apart(registry: CollectorRegistry, observer: Observer) -> None:
    metrics = Metrics(CollectorRegistry())  # a second service in the same process
    metrics.observer("translation", "en-fr").request(200, 1.0)
    assert value(registry, "heedful_requests_total", status="200") == 0
    assert not any(family.name.startswith("heedful") for family in REGISTRY.collect())


@pytest.mark.parametrize("buckets", [REQUEST_SECONDS, PHASE_SECONDS, STEP_ROWS])
def test_buckets_grow_by_a_factor_of_at_most_three(buckets: tuple[float, ...]) -> None:
    assert all(1 < after / before <= 3 for before, after in pairwise(buckets))
