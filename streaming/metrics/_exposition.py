"""What all workers counted, added up and written as Prometheus reads it.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import time
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import exposition
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics import exposition as openmetrics

from streaming.metrics._cells import Entry
from streaming.metrics._names import ALL, BEAT, BY_NAME, Metric

Sums = dict[str, dict[tuple[str, ...], list[float]]]


def added_up(everybody: Iterable[tuple[bool, Sequence[Entry]]]) -> Sums:
    """Return the numbers of all workers by metric and labels; of the dead, what they counted."""
    sums: Sums = {metric.name: {} for metric in ALL}
    silent = 0.0
    for lives, entries in everybody:
        for name, labels, values in entries:
            if name == BEAT and lives and values[0]:
                silent = max(silent, time.monotonic() - values[0])
            metric = BY_NAME.get(name)
            if metric is None or len(labels) != len(metric.labels):
                continue  # another version of this service wrote it
            if metric.kind == "gauge" and not lives:
                continue
            kept = sums[name].setdefault(labels, [0.0] * len(values))
            if metric.over_workers == "max":
                kept[:] = map(max, kept, values)
            else:
                kept[:] = map(sum, zip(kept, values, strict=False))
    sums["sluice_loop_silent_seconds"][()] = [silent]
    return sums


def written(sums: Sums, accept: str = "") -> tuple[bytes, str]:
    """Return the text and its media type: OpenMetrics for who asks for that, else Prometheus' own."""
    collected = _Collected(sums)
    if "application/openmetrics-text" in accept:
        return openmetrics.generate_latest(collected), openmetrics.CONTENT_TYPE_LATEST  # type: ignore[no-untyped-call]
    return exposition.generate_latest(collected), exposition.CONTENT_TYPE_LATEST


class _Collected:
    """Numbers as the library takes them from a registry."""

    def __init__(self, sums: Sums) -> None:
        self._sums = sums

    def collect(self) -> Iterator[Family]:
        for metric in ALL:
            yield _family(metric, self._sums.get(metric.name, {}))


def _family(metric: Metric, series: dict[tuple[str, ...], list[float]]) -> Family:
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        for labels, (*counts, total) in sorted(series.items()):
            histogram.add_metric(labels, list(_cumulative(metric.bounds, counts)), total)
        return histogram
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels)
    for labels, (value,) in sorted(series.items()):
        family.add_metric(labels, value)
    return family


def _cumulative(bounds: Sequence[float], counts: Sequence[float]) -> Iterator[tuple[str, float]]:
    so_far = 0.0
    for bound, count in zip((*map(str, bounds), "+Inf"), counts, strict=True):
        so_far += count
        yield bound, so_far
