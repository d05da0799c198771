"""``python -m streaming usage``: what was used, in a terminal."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from streaming.eventlogs import Claim, Spent
from streaming.eventlogs.sqlite import SQLiteLog
from tests.doubles import new_stream


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "streams.db"
    log = SQLiteLog(path, "NORMAL")
    for day, owner, cost in (("2026-11-20", "key_a", None), ("2026-11-21", "key_b", 1_500_000_000)):
        claim = Claim(log.create(new_stream(log, owner=owner), [b"first"]), 1)
        log.append(claim, 2, [b"end"], "completed", Spent(day, "m", 10, 20, not cost, 3_000_000, 5, cost))
    log.close()
    return path


def usage(store: Path | str, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "streaming", "usage", *arguments],
        env=os.environ | {"EVENTLOG_URL": f"sqlite:///{store}", "RUNNABLES": "none"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_it_shows_a_line_for_each_and_the_sum(store: Path) -> None:
    lines = [line.split() for line in usage(store, "--from", "2026-11-01", "--to", "2026-11-30").splitlines()]
    assert lines[1] == ["2026-11-20", "key_a", "m", "1", "0", "~10", "~20", "3.0", "-"]
    assert lines[2] == ["2026-11-21", "key_b", "m", "1", "0", "10", "20", "3.0", "1.500000"]
    assert lines[3][:3] == ["total", "total", "total"]
    assert lines[3][-1] == "1.500000"


def test_programs_get_json(store: Path) -> None:
    told = json.loads(
        usage(store, "--json", "--by", "principal", "--from", "2026-11-21", "--to", "2026-11-21")
    )
    assert [row["principal"] for row in told["data"]] == ["key_b"]
    assert told["total"]["cost"] == 1.5


def test_a_wrong_command_line_and_a_store_that_is_not_there_are_told(store: Path) -> None:
    assert "--by" in usage(store, "--by", "colour", code=2)
    assert "there is no" in usage(store.with_name("none.db"), code=1)
    assert not store.with_name("none.db").exists()
