"""The search for keys and prompts in logs finds what is planted, however it is written."""

import json
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from tests.log_scan import LogScan, report

PROMPT = 'tell me about "my secret" plan, ü'


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "service.log"


def hits_of(log: Path, line: str) -> list[str]:
    log.write_text(f"INFO stream ended records=3\n{line}\nINFO key_0a1b2c3d used\n")
    scan = LogScan()
    scan.watch(log)
    scan.said(
        {"messages": [{"role": "user", "content": [{"type": "text", "text": PROMPT}]}], "model": "m-of-12"}
    )
    return [hit.what for hit in scan.hits()]


@pytest.mark.parametrize(
    "line",
    [
        PROMPT,
        f"Traceback: {PROMPT!r}",
        json.dumps({"asked": PROMPT}),
        f"GET /stream?prompt={quote(PROMPT)}",
        f"GET /stream?prompt={quote_plus(PROMPT)}",
        'said <<{"token": "a"}>>',
        "GET /stream?prompt=%3c%3c%7B%22",
    ],
)
def test_a_prompt_is_found(log: Path, line: str) -> None:
    assert hits_of(log, line) == ["a prompt"]


@pytest.mark.parametrize(
    "line", ["key=sk-secret-live-key", "Authorization: Bearer abcdef123456", "'sk-sluice-0a1b2c3d-xyz'"]
)
def test_a_key_is_found_and_not_repeated(log: Path, line: str) -> None:
    assert hits_of(log, line) == ["a key"]
    scan = LogScan()
    scan.watch(log)
    told = report(scan.hits())
    assert f"{log}:2" in told
    assert "secret-live" not in told


@pytest.mark.parametrize("line", ["stream ended", "Bearer [taken out]", "model=m-of-12", "task-ask-force"])
def test_what_a_log_may_say_is_not_a_hit(log: Path, line: str) -> None:
    assert hits_of(log, line) == []


def test_a_log_that_is_gone_is_a_hit(log: Path) -> None:
    scan = LogScan()
    scan.watch(log)
    assert [hit.what for hit in scan.hits()] == ["the log is gone"]
