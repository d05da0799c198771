"""Which plots a run's rows make: bars for each load, lines for what grows."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from bench import svg
from bench.measure import Row
from bench.report import grouped, spread
from bench.scenarios import GROWTH, Scenario


class Measure(NamedTuple):
    title: str
    unit: str
    value: Callable[[Row], float | None]


CHUNK = Measure("CPU of a chunk", "µs", lambda row: row.cpu_us_per_chunk)
REQUEST = Measure("CPU of a request", "µs", lambda row: row.cpu_us_per_request)
MEMORY = Measure("Memory of an open stream", "KiB", lambda row: row.kib_per_stream)
FIRST = Measure("Time to the first chunk, median", "ms", lambda row: row.first_token_ms.get("0.5"))
LATENCY = Measure("Latency, median", "ms", lambda row: row.latency_ms.get("0.5"))
LATE = Measure("Latency, 99 of 100 below", "ms", lambda row: row.latency_ms.get("0.99"))


def draw(rows: Sequence[Row], scenarios: Mapping[str, Scenario], title: str) -> str:
    """Return one SVG of all that was measured."""
    panels: list[svg.Panel] = []
    for name in dict.fromkeys(row.scenario for row in rows):
        if not scenarios[name].series:
            panels += _bars([row for row in rows if row.scenario == name], scenarios[name])
    for series in GROWTH:
        group = [row for row in rows if scenarios[row.scenario].series == series]
        if group:
            panels.append(_lines(group, scenarios))
    return svg.page(title, panels)


def _bars(rows: Sequence[Row], scenario: Scenario) -> list[svg.Panel]:
    # A request of many chunks costs what its chunks do, and a chunk of a short one what its request does.
    short = bool(scenario.seconds) and scenario.chunks < 100
    panels = []
    for measure in (REQUEST if short else CHUNK, MEMORY, FIRST, LATENCY, LATE):
        found = [
            svg.Bar(target, *spread(values))
            for target in dict.fromkeys(row.target for row in rows)
            if (values := _values(rows, target, measure))
        ]
        if any(bar.most for bar in found):
            panels.append(svg.bars(f"{measure.title}: {scenario.about}", measure.unit, found))
    return panels


def _values(rows: Sequence[Row], target: str, measure: Measure) -> list[float]:
    values = (measure.value(row) for row in rows if row.target == target)
    return [value for value in values if value is not None]


def _lines(rows: Sequence[Row], scenarios: Mapping[str, Scenario]) -> svg.Panel:
    scenario = scenarios[rows[0].scenario]
    measure = REQUEST if scenario.kind == "resume" else CHUNK
    lines: dict[str, list[svg.Point]] = {}
    for (name, target), group in grouped(rows).items():
        lines.setdefault(target, []).append((scenarios[name].x, *spread(_values(group, target, measure))))
    return svg.lines(f"{measure.title}, by {scenario.about}", scenario.about, measure.unit, lines)
