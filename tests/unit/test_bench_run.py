"""The benchmark as it is run, at small sizes."""

import os
import signal
import subprocess
import sys

import msgspec

from bench._processes import tree
from bench.measure import Row, measure
from bench.scenarios import SMOKE, Scenario
from bench.targets import REPOSITORY, targets
from tests.doubles import eventually

# Without the examples, whose imports take longer than all else.
QUICK = ("--targets", "openai", "--env", "RUNNABLES=none")


def runs(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_fan_out_resume_and_memory_are_measured_as_plain_streams_are():
    scenarios = [
        Scenario("readers", "", 10, 10, 20, 50, kind="fan-out"),
        Scenario("log", "", 2, 10, seconds=0.3, kind="resume", log_chunks=2000),
        Scenario("open", "", 200, 200, 50, 100, memory=True, chunk_chars=500),
    ]
    rows = list(measure(targets({"RUNNABLES": "none"}, {})["native"], scenarios, 1))
    assert [(each.scenario, each.failed, each.faults) for each in rows] == [
        (s.name, 0, {}) for s in scenarios
    ]
    assert rows[0].ok == 10
    assert rows[1].ok > 2
    # Of two hundred streams: fewer hold less than what the process gives back meanwhile.
    assert rows[2].kib_per_stream > 0
    assert [each.kib_per_stream for each in rows[:2]] == [None, None]


def bench(tmp_path, *arguments):
    command = [sys.executable, "-m", "bench", "--out", str(tmp_path), *arguments]
    return subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_a_small_run_fills_its_table_and_keeps_its_results(tmp_path):
    with bench(tmp_path, "smoke", *QUICK) as process:
        said = process.communicate(timeout=100)[0]
    assert process.returncode == 0, said
    (kept,) = tmp_path.glob("*.json")
    found = msgspec.json.decode(kept.read_bytes())
    rows = msgspec.convert(found["rows"], list[Row])
    assert [(each.scenario, each.failed) for each in rows] == [("smoke", 0), ("smoke-short", 0)]
    assert rows[0].ok == SMOKE.streams
    assert all(each.cpu_us_per_chunk > 0 and each.latency_ms["0.5"] > 0 for each in rows)
    assert found["run"]["machine"]["cores"] == len(os.sched_getaffinity(0))
    assert found["run"]["commit"]
    assert "CPU of a chunk" in kept.with_suffix(".svg").read_text()
    assert "no stream fails" in said


def test_a_service_that_does_not_start_is_told_and_fails_the_run(tmp_path):
    with bench(tmp_path, "smoke", "--targets", "openai", "--env", "PORT=none") as process:
        said = process.communicate(timeout=100)[0]
    assert process.returncode == 1
    assert "PORT" in said


def test_at_ctrl_c_all_processes_are_gone_and_what_was_measured_is_kept(tmp_path):
    with bench(tmp_path, "smoke", "--rounds", "50", *QUICK) as process:
        assert process.stdout
        eventually(lambda: "1  smoke" in process.stdout.readline(), 60)
        eventually(lambda: len(tree(process.pid)) > 2, 20)
        pids = tree(process.pid)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)[0]
    assert process.returncode == 130, said
    for pid in pids:
        eventually(lambda pid=pid: not runs(pid))
    (kept,) = tmp_path.glob("*.json")
    assert msgspec.json.decode(kept.read_bytes())["interrupted"] is True


def test_an_unknown_plan_is_named_with_those_there_are(tmp_path):
    with bench(tmp_path, "fast") as process:
        said = process.communicate(timeout=20)[0]
    assert process.returncode == 2
    assert "'fast'" in said or "called fast" in said
    assert "growth" in said
