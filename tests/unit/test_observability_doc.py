"""docs/observability.md names every metric as it is, and no other."""

import re
from pathlib import Path

import pytest

from streaming.metrics._names import ALL, BY_NAME, Metric
from streaming.settings import Settings

DOC = (Path(__file__).parents[2] / "docs" / "observability.md").read_text()
SUFFIXES = re.compile(r"_(bucket|sum|count)$")


def row_of(metric: Metric) -> str:
    kind = f"gauge, {metric.over_workers} over workers" if metric.kind == "gauge" else metric.kind
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {kind} | {labels} | {metric.help} |"


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_every_metric_is_a_row_of_the_table(metric: Metric) -> None:
    assert row_of(metric) in DOC.splitlines()


def test_no_metric_is_named_that_there_is_not() -> None:
    named = {SUFFIXES.sub("", name) for name in re.findall(r"\bsluice_[a-z_]+", DOC)}
    assert named <= BY_NAME.keys()


def test_no_row_is_of_a_metric_that_was_taken_away() -> None:
    assert len(re.findall(r"^\| `sluice_", DOC, re.MULTILINE)) == len(ALL)


@pytest.mark.parametrize(
    "name",
    [
        "metrics_bind",
        "metrics_token",
        "metrics_directory",
        "log_format",
        "log_exceptions",
        "access_log",
        "health_lag_seconds",
    ],
)
def test_its_settings_are_settings(name: str) -> None:
    assert name in Settings.__dataclass_fields__
    assert name.upper() in DOC


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_names_are_as_prometheus_wants_them(metric: Metric) -> None:
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert metric.help.endswith(".")
    assert bool(metric.bounds) == (metric.kind == "histogram")
    assert list(metric.bounds) == sorted(metric.bounds)
