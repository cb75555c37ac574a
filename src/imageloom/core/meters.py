"""What one process counts, in a registry of its own, and the shape in which counts travel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, assert_never

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric as Family

from imageloom.domain.metrics import METRICS, Metric

MadeMetric = Counter | Gauge | Histogram


class Sample(NamedTuple):
    """One number of a metric: its full name, such as `…_bucket`, and its labels."""

    name: str
    labels: dict[str, str]
    value: float


class Meters:
    """The counts of one process; a metric is there from its first count on. Safe from threads."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._made: dict[str, MadeMetric] = {}

    def count(self, metric: Metric, amount: float = 1, **labels: str) -> None:
        """Add to a counter. With an amount of 0 it is there, for rates to begin from."""
        self._labelled(metric, labels).inc(amount)

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Add a value to a histogram."""
        self._labelled(metric, labels).observe(value)

    def samples(self) -> Iterator[tuple[str, Sample]]:
        """Yield every number by the name of its metric."""
        for name, made in self._made.copy().items():
            for family in made.collect():
                for sample in family.samples:
                    # When a count began is of no use beside the time of the scrape.
                    if not sample.name.endswith("_created"):
                        yield name, Sample(sample.name, dict(sample.labels), sample.value)

    def _labelled(self, metric: Metric, labels: dict[str, str]) -> Any:
        made = self._made.get(metric.name) or self._make(metric)
        return made.labels(**labels) if metric.labels else made

    def _make(self, metric: Metric) -> MadeMetric:
        made: MadeMetric
        match metric.kind:
            case "counter":
                made = Counter(metric.name, metric.help, metric.labels, registry=self._registry)
            case "gauge":
                made = Gauge(metric.name, metric.help, metric.labels, registry=self._registry)
            case "histogram":
                made = Histogram(
                    metric.name,
                    metric.help,
                    metric.labels,
                    buckets=metric.buckets,
                    registry=self._registry,
                )
            case _:
                assert_never(metric.kind)
        self._made[metric.name] = made
        return made


def exposition(samples: Iterable[tuple[str, Sample]]) -> bytes:
    """Return samples in the text format of Prometheus, each metric once, also without samples.

    Those of a name that is not declared, as a worker of another version may send, are left out.
    """
    families = {
        metric.name: Family(metric.name.removesuffix("_total"), metric.help, metric.kind)
        for metric in METRICS
    }
    for name, sample in samples:
        if (family := families.get(name)) is not None:
            family.add_sample(sample.name, sample.labels, sample.value)
    return generate_latest(_Families(list(families.values())))


class _Families:
    """What `generate_latest` asks of a registry."""

    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Family]:
        return iter(self._families)
