"""What people read: a table that fills as rows come, and a summary."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from bench.measure import OTHERS_LIMIT, Row, Unmeasured
from bench.startup import Start


class Column(NamedTuple):
    title: str
    width: int
    value: Callable[[Row], float | None]
    digits: int


COLUMNS = (
    Column("µs/chunk", 9, lambda row: row.cpu_us_per_chunk, 1),
    Column("store", 6, lambda row: row.store_cpu_us_per_chunk, 1),
    Column("µs/request", 10, lambda row: row.cpu_us_per_request, 0),
    Column("KiB/stream", 10, lambda row: row.kib_per_stream, 1),
    Column("chunks/s", 9, lambda row: row.chunks_per_second, 0),
    Column("1st ms", 8, lambda row: row.first_token_ms.get("0.5"), 1),
    Column("1st p99", 8, lambda row: row.first_token_ms.get("0.99"), 1),
    Column("p50 ms", 7, lambda row: row.latency_ms.get("0.5"), 2),
    Column("p99 ms", 8, lambda row: row.latency_ms.get("0.99"), 2),
    Column("failed", 6, lambda row: row.failed, 0),
    Column("rig", 5, lambda row: row.rig_share, 2),
)
SPREAD_WIDTH = 12
Key = tuple[str, str]
"""Scenario and target."""


def print_head() -> None:
    names = f"{'round':>5}  {'scenario':14} {'target':16}"
    print(names + " ".join(f"{column.title:>{column.width}}" for column in COLUMNS), flush=True)


def print_row(row: Row) -> None:
    cells = " ".join(f"{_shown(column, column.value(row)):>{column.width}}" for column in COLUMNS)
    print(f"{row.round:5}  {row.scenario:14} {row.target:16}{cells}{_marks(row)}", flush=True)
    for sample in row.samples[:1]:
        print(f"       {row.faults}: {sample[:300]}", flush=True)


def print_unmeasured(found: Unmeasured) -> None:
    print(f"       {found.target}: not measured. {found.reason}", flush=True)


def print_summary(rows: Sequence[Row]) -> None:
    """Print the medians of the rounds, and how far the rounds are apart."""
    shown = [column for column in COLUMNS if column.title not in ("failed", "chunks/s")]
    print("\nMedians of the rounds, and from them to the furthest round")
    print(f"{'scenario':14} {'target':16}" + " ".join(f"{column.title:>{SPREAD_WIDTH}}" for column in shown))
    for (name, target), group in grouped(rows).items():
        cells = []
        for column in shown:
            values = [value for row in group if (value := column.value(row)) is not None]
            cells.append(f"{spread(values):.{column.digits}f}" if values else "")
        line = f"{name:14} {target:16}" + " ".join(f"{cell:>{SPREAD_WIDTH}}" for cell in cells)
        print(line + _marks(min(group, key=lambda row: row.held)))


def print_starts(starts: Sequence[Start]) -> None:
    print("\nStart-up (files in the page cache)")
    for start in starts:
        times = f"first byte {start.first_byte_seconds:.2f} s  imports {start.import_seconds:.2f} s"
        memory = f"idle RSS {start.rss_kib / 1024:.0f} MiB, PSS {start.pss_kib / 1024:.0f} MiB"
        print(f"  {start.name:22}{times}  CPU {start.cpu_seconds:.2f} s  {memory}")
        if start.slowest_imports:
            shown = ", ".join(f"{name} {ms:.0f}" for name, ms in start.slowest_imports.items())
            print(f"  {'':22}slowest imports, ms with what they import: {shown}")


class Spread(NamedTuple):
    middle: float
    least: float
    most: float

    def __format__(self, spec: str) -> str:
        furthest = max(self.most - self.middle, self.middle - self.least)
        if not (self.middle and furthest):
            return format(self.middle, spec)
        return f"{self.middle:{spec}} ±{furthest / self.middle:.0%}"


def spread(values: Iterable[float]) -> Spread:
    found = list(values)
    return Spread(statistics.median(found), min(found), max(found))


def grouped(rows: Iterable[Row]) -> dict[Key, list[Row]]:
    """Return the rows of each scenario and target, all scenarios' targets together."""
    found: dict[Key, list[Row]] = {}
    for row in rows:
        found.setdefault((row.scenario, row.target), []).append(row)
    order = list(dict.fromkeys(name for name, _ in found))
    return {key: found[key] for key in sorted(found, key=lambda key: order.index(key[0]))}


def _shown(column: Column, value: float | None) -> str:
    return "" if value is None else f"{value:.{column.digits}f}"


def _marks(row: Row) -> str:
    marks = []
    if not row.held:
        marks.append("did not hold")
    if row.rig_was_limit:
        marks.append("the rig was the limit")
    if row.others_share > OTHERS_LIMIT:
        marks.append(f"others took {row.others_share:.0%} of its core")
    return f"  <- {', '.join(marks)}" if marks else ""
