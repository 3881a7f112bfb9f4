"""From a row of numbers to what prometheus-client shows: the one file that knows it.

This module owns the mapping, and nothing else. It is imported only when numbers are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, final

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric as Family,
)
from prometheus_client.registry import Collector

from .._metering import METRICS, Kind, Metric, cumulative

#: The media type of `text_of`.
CONTENT_TYPE: Final = CONTENT_TYPE_LATEST


def family(metric: Metric, numbers: Sequence[float]) -> Family:
    """One metric, with all its labels."""
    if metric.kind is Kind.HISTOGRAM:
        histogram = HistogramMetricFamily(metric.name, metric.what)
        bounds = [*map(str, metric.bounds), "+Inf"]
        buckets = [*zip(bounds, cumulative(metric, numbers), strict=True)]
        histogram.add_metric([], buckets, numbers[metric.start + metric.size - 1])
        return histogram
    kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    simple = kind(metric.name, metric.what, labels=list(metric.labels))
    for values, place in metric.places.items():
        simple.add_metric(values, numbers[place])
    return simple


@final
class NumbersCollector(Collector):
    """What a registry of prometheus-client asks.

    Args:
        numbers: gives the numbers, in any thread.
        metrics: which are shown.
    """

    def __init__(
        self, numbers: Callable[[], Sequence[float]], metrics: Sequence[Metric] = METRICS
    ) -> None:
        self._numbers = numbers
        self._metrics = metrics

    def collect(self) -> Iterator[Family]:
        numbers = self._numbers()
        return (family(metric, numbers) for metric in self._metrics)


def text_of(metric: Metric, numbers: Sequence[float]) -> bytes:
    """One metric in Prometheus' text format. Those of several, put together, are one text."""
    return generate_latest(NumbersCollector(lambda: numbers, [metric]))
