"""One Prometheus page from several: nothing lost, nothing twice, every sample named by its replica."""

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.parser import text_string_to_metric_families

from service.exposition import merge
from service.metrics import Metrics, render


def page(requests: int) -> bytes:
    registry = CollectorRegistry()
    observer = Metrics(registry).observer("translation", 'en"fr\\')
    for _ in range(requests):
        observer.request(200, 0.2)
    return render(registry)


def families(text: bytes) -> dict[str, Metric]:
    found = list(text_string_to_metric_families(text.decode()))
    assert len({family.name for family in found}) == len(found), "a family appears twice"
    return {family.name: family for family in found}


def test_every_sample_of_every_page_is_there_under_its_replica() -> None:
    one, two = page(1), page(2)
    merged = families(merge({"one": one, "two": two}))
    for replica, alone in (("one", families(one)), ("two", families(two))):
        for name, family in alone.items():
            assert (merged[name].type, merged[name].documentation) == (family.type, family.documentation)
            expected = [sample._replace(labels={**sample.labels, "replica": replica}) for sample in family.samples]
            assert [sample for sample in merged[name].samples if sample.labels["replica"] == replica] == expected
    assert sum(len(family.samples) for family in merged.values()) == sum(
        len(family.samples) for text in (one, two) for family in families(text).values()
    )


def test_a_counter_stays_a_counter() -> None:
    merged = merge({"one": page(1)}).decode()
    assert "# TYPE heedful_requests_total counter" in merged
    assert r'heedful_requests_total{model="en\"fr\\",replica="one",status="200",task="translation"} 1.0' in merged


def test_no_pages_make_an_empty_page() -> None:
    assert merge({}) == b""
