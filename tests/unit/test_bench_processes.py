"""Processes the benchmark starts: measured with their children, and gone afterwards."""

import os
import sys
from pathlib import Path

import pytest

from bench._processes import NotStarted, Process, free_port, tree
from bench._scratch import choose_cores
from tests.doubles import eventually


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


BURN = "import time\nwhile time.process_time() < 0.3: pass"


def test_cpu_time_is_that_of_all_children_also_of_those_that_have_ended(tmp_path):
    burn = f'"{sys.executable}" -c "$BURN"'
    command = ("sh", "-c", f"{burn}; {burn} & wait; echo done; sleep 60")
    with Process(command, None, tmp_path, {"BURN": BURN}) as process:
        eventually(lambda: "done" in process.said(), 30)
        # 0.3 s each, in steps of 10 ms for each process.
        assert 0.5 <= process.cpu_seconds() < 2.0
        assert process.rss_kib() >= process.pss_kib() > 0


def test_nothing_of_a_process_stays_behind(tmp_path):
    with Process(("sh", "-c", "setsid sleep 60 & sleep 60 & sleep 60"), None, tmp_path) as process:
        pids = eventually(lambda: len(found := tree(process.pid)) == 4 and found)
    for pid in pids:
        eventually(lambda pid=pid: not runs(pid))


def test_a_process_runs_on_the_core_it_was_given(tmp_path):
    core = max(os.sched_getaffinity(0))
    with Process(("sleep", "60"), core, tmp_path) as process:
        assert os.sched_getaffinity(process.pid) == {core}


def test_the_server_has_a_core_of_its_own_where_there_are_two():
    cores = choose_cores()
    assert len(os.sched_getaffinity(0)) < 2 or cores.server != cores.rig


def test_a_program_that_ends_at_once_is_told_with_what_it_said(tmp_path):
    with (
        Process(("sh", "-c", "echo no such module >&2; exit 3"), None, tmp_path) as process,
        pytest.raises(NotStarted, match="no such module"),
    ):
        process.wait_for_port(free_port())


def test_the_callers_settings_do_not_reach_what_is_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("EVENTLOG_URL", "redis://elsewhere")
    with Process(("env",), None, tmp_path) as process:
        process.wait(5)
        assert "elsewhere" not in process.said()
