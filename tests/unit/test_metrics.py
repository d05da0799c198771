"""What is counted in one process, and what several make together."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from streaming.events import Token, Usage
from streaming.metrics import Metrics, _cells, _directory
from streaming.metrics._cells import Cells
from streaming.metrics._exposition import added_up, written
from streaming.metrics._names import ALL
from streaming.observers import RunEnd, RunFacts
from streaming.tally import Tally
from tests.doubles import eventually

Numbers = dict[tuple[str, tuple[tuple[str, str], ...]], float]
Make = Callable[..., Metrics]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Metrics] = []

    def make_(**options: Any) -> Metrics:
        made.append(Metrics(sources=["chat"], models=["small"], **options))
        return made[-1]

    yield make_
    for metrics in made:
        metrics.close()


def shown(metrics: Metrics) -> Numbers:
    text, media_type = metrics.text()
    assert media_type.startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def number(numbers: Numbers, name: str, **labels: str) -> float:
    return numbers.get((name, tuple(sorted(labels.items()))), 0.0)


def a_run(metrics: Metrics, state: Any = "completed", model: str = "small", **facts: Any) -> None:
    run = RunFacts("st_1", "key_1", facts.pop("source", "chat"), model, **facts)
    tally = Tally(model)
    if not run.taken_over:
        metrics.started(run)
        tally.start()
        tally.add([Token("word"), Usage({"prompt_tokens": 7, "completion_tokens": 3})])
        metrics.event(run, 2, 100, 0.002)
        metrics.first_token(run, 0.3)
        metrics.event(run, 1, 50, 0.2)
    metrics.ended(run, RunEnd(state, tally, "" if state == "completed" else "interrupted", seconds=1.5))


def test_a_run_is_in_every_metric_that_tells_of_runs(make: Make) -> None:
    metrics = make(store="memory", version="1.2")
    a_run(metrics)
    found = shown(metrics)

    assert number(found, "sluice_streams_started_total", source="chat") == 1
    assert number(found, "sluice_streams_ended_total", source="chat", state="completed") == 1
    assert number(found, "sluice_events_total") == 3
    assert number(found, "sluice_event_bytes_total") == 150
    counted = {"model": "small", "counted_by": "upstream"}
    assert number(found, "sluice_tokens_total", direction="in", **counted) == 7
    assert number(found, "sluice_tokens_total", direction="out", **counted) == 3
    assert number(found, "sluice_first_token_seconds_bucket", model="small", le="0.25") == 0
    assert number(found, "sluice_first_token_seconds_bucket", model="small", le="0.5") == 1
    assert number(found, "sluice_first_token_seconds_bucket", model="small", le="+Inf") == 1
    assert number(found, "sluice_store_commit_seconds_count", store="memory") == 2
    assert number(found, "sluice_store_commit_seconds_sum", store="memory") == pytest.approx(0.202)
    assert number(found, "sluice_token_gap_seconds_count") == 1, "the first batch comes after no other"


def test_a_number_on_the_bound_of_a_bucket_is_in_it(make: Make) -> None:
    metrics = make()
    metrics.log_lag(0.005)
    found = shown(metrics)
    assert number(found, "sluice_log_lag_seconds_bucket", le="0.005") == 1
    assert number(found, "sluice_log_lag_seconds_bucket", le="0.0025") == 0


def test_what_a_caller_says_never_becomes_a_label(make: Make) -> None:
    metrics = make()
    for place in range(500):
        a_run(metrics, model=f'made up {place}"\n', source=f"no such {place}")
        metrics.answered(f"VERB{place}", "/streams", 200)
    metrics.store_failed("whatever the store says")
    found = shown(metrics)

    assert number(found, "sluice_streams_ended_total", source="other", state="completed") == 500
    assert number(found, "sluice_first_token_seconds_count", model="other") == 500
    assert number(found, "sluice_http_requests_total", method="other", route="/streams", status="200") == 500
    assert number(found, "sluice_store_errors_total", code="store_unavailable") == 1
    assert "made up" not in str(found)


def test_a_run_that_went_to_another_worker_is_fenced_and_not_ended(make: Make) -> None:
    metrics = make()
    a_run(metrics, state="fenced")
    found = shown(metrics)
    assert number(found, "sluice_store_fenced_total") == 1
    assert not [name for name, _ in found if name.startswith("sluice_streams_ended")]
    assert not metrics._last_at, "something of the run is kept for ever"


def test_two_workers_are_added_up_and_the_dead_only_in_what_they_counted(make: Make, tmp_path: Path) -> None:
    living = make(directory=str(tmp_path))
    a_run(living)
    dead = Cells(tmp_path / "999999999-1.cells")
    dead.values[dead.place("sluice_streams_ended_total", ("chat", "completed"))] = 4
    dead.values[dead.place("sluice_streams_running")] = 5
    dead.values[dead.place("sluice_workers")] = 1
    dead.values[dead.place("sluice_loop_lag_worst_seconds")] = 9
    dead.close()

    for folded in (False, True):
        if folded:
            for other in range(3):
                Cells(tmp_path / f"99999999{other}-1.cells").close()
            _directory.fold_dead(str(tmp_path))
            assert len(list(tmp_path.glob("*.cells"))) == 2
        found = shown(living)
        assert number(found, "sluice_streams_ended_total", source="chat", state="completed") == 5
        assert number(found, "sluice_streams_running") == 0
        assert number(found, "sluice_workers") == 1
        assert number(found, "sluice_loop_lag_worst_seconds") < 9


def test_a_directory_that_is_gone_leaves_a_worker_with_its_own_numbers(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = make(directory=str(tmp_path / "not there"))
    a_run(metrics)
    assert [record.message for record in caplog.records] == [
        "this worker's metrics are not shared with the others"
    ]


def test_every_cut_of_a_file_is_read_as_far_as_it_is_whole(tmp_path: Path) -> None:
    cells = Cells(tmp_path / "1-1.cells")
    cells.values[cells.place("one", ("a", "bé\n"), 3) + 2] = 7.5
    cells.values[cells.place("two")] = 1
    content = (tmp_path / "1-1.cells").read_bytes()[:200]
    whole = list(_cells.read(content))
    assert whole == [("one", ("a", "bé\n"), (0.0, 0.0, 7.5)), ("two", (), (1.0,))]
    for end in range(len(content)):
        assert list(_cells.read(content[:end])) in ([], whole[:1], whole)
    cells.close()


def test_where_there_is_no_room_nothing_breaks_and_nothing_else_is_touched() -> None:
    cells = Cells()
    first = cells.place("first")
    for place in range(20_000):
        cells.values[cells.place("many", (str(place),), 20) + 19] += 1
    assert cells.is_full
    assert cells.values[first] == 0
    assert all(entry.values[0] == 0 for entry in cells.entries())
    cells.close()


def test_what_is_written_is_read_by_prometheus_in_both_of_its_formats(make: Make) -> None:
    metrics = make()
    a_run(metrics)
    text, media_type = metrics.text("application/openmetrics-text; version=1.0.0")
    assert media_type.startswith("application/openmetrics-text")
    names = {family.name for family in parse_openmetrics(text.decode())}
    assert {metric.name.removesuffix("_total") for metric in ALL} == names


def test_a_loop_that_was_blocked_is_told(make: Make) -> None:
    metrics = make()
    eventually(lambda: number(shown(metrics), "sluice_loop_lag_seconds_count") > 0)
    real_sleep = gevent.monkey.get_original("time", "sleep")
    real_sleep(0.6)
    eventually(lambda: number(shown(metrics), "sluice_loop_lag_worst_seconds") > 0.2)
    assert metrics.loop.worst_seconds(60) > 0.2


def test_a_worker_whose_loop_stands_still_is_seen_by_the_others(tmp_path: Path) -> None:
    stuck = Cells()
    stuck.values[stuck.place("beat")] = time.monotonic() - 5
    sums = added_up([(True, list(stuck.entries()))])
    assert sums["sluice_loop_silent_seconds"][()][0] == pytest.approx(5, abs=1)
    assert added_up([(False, list(stuck.entries()))])["sluice_loop_silent_seconds"][()] == [0.0]
    assert b"beat" not in written(sums)[0]
    stuck.close()


def test_a_batch_costs_a_few_microseconds(make: Make) -> None:
    # What is measured: 1.5. The bound is for a machine that has much else to do.
    metrics = make()
    run = RunFacts("st_1", "", "chat", "small")
    metrics.started(run)
    fastest = float("inf")
    for _ in range(20):
        began = time.process_time()
        for _ in range(2000):
            metrics.event(run, 1, 100, 0.001)
        fastest = min(fastest, (time.process_time() - began) / 2000)
    assert fastest < 8e-6
