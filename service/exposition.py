"""The Prometheus pages of several replicas as one, so that a scrape behind the load balancer loses no numbers."""

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from service.metrics import render


class _Families(Collector):
    def __init__(self, families: Mapping[str, Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families.values()


def merge(pages: Mapping[str, bytes]) -> bytes:
    """Join pages in the Prometheus text format, family by family.

    Args:
        pages: by the name of the replica, which every sample gets as its label `replica`.
    """
    families: dict[str, Metric] = {}
    for replica, page in pages.items():
        for family in text_string_to_metric_families(page.decode()):
            merged = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            merged.samples.extend(
                sample._replace(labels={**sample.labels, "replica": replica}) for sample in family.samples
            )
    registry = CollectorRegistry()
    registry.register(_Families(families))
    return render(registry)
