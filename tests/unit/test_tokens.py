"""Counting tokens: with tables that are here, without them by an estimate, and never from the network."""

import base64
import hashlib
import importlib
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import gevent.monkey
import pytest

from streaming import token_tables, tokens
from streaming.errors import ErrorInfo, UpstreamTruncated
from streaming.eventlogs import Claim
from streaming.eventlogs.memory import MemoryLog
from streaming.events import Done, Error, Reasoning, Start, Token, ToolCall, encode
from streaming.formats._usage import estimated_usage
from streaming.producer import Producers
from streaming.sources import Prompt
from streaming.sources._demo_answers import answer
from streaming.sources._demo_completion import tokenize
from streaming.sources._demo_request import ChatRequest, Message
from streaming.tally import Tally
from streaming.token_tables import TABLES, Tables, table_of
from streaming.tokens import Count
from tests.doubles import Gate, ScriptedSource, all_events, new_stream
from tests.doubles import ended as ended_as

MERGES = ["he", "ll", "hell", "hello", " w", "or", "ld", " wor", " world"]


def small_table() -> bytes:
    """Return a table of the bytes and a few merges, in tiktoken's file format."""
    known = [bytes([value]) for value in range(256)] + [merge.encode() for merge in MERGES]
    return b"".join(b"%s %d\n" % (base64.b64encode(token), rank) for rank, token in enumerate(known))


def put_table(directory: Path, name: str, contents: bytes) -> Path:
    """Write it where tiktoken's own loader would look for it."""
    path = directory / hashlib.sha1(TABLES[name].url.encode()).hexdigest()
    path.write_bytes(contents)
    return path


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail on every attempt to reach anything, at the end too when somebody caught that."""
    tried: list[object] = []

    def refuse(*address: object, **_: object) -> Any:
        tried.append(address)
        raise AssertionError(f"the network was asked for {address}")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield
    assert not tried


@pytest.fixture
def with_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_network: None) -> Path:
    """A machine that has a small table in the place of o200k_base."""
    contents = small_table()
    path = put_table(tmp_path, "o200k_base", contents)
    digest = hashlib.sha256(contents).hexdigest()
    known = TABLES | {"o200k_base": TABLES["o200k_base"]._replace(sha256=digest)}
    monkeypatch.setattr(tokens, "_tables", Tables(tmp_path, known))
    return path


@pytest.fixture
def without_tables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_network: None) -> None:
    monkeypatch.setattr(tokens, "_tables", Tables(tmp_path))


# With a table


def test_a_text_is_counted_by_the_table_that_is_on_this_machine(with_table: Path) -> None:
    assert tokens.can_count("gpt-5-mini")
    assert tokens.count("hello world", "gpt-5-mini") == Count(2, "tiktoken")
    assert tokens.count("hello world") == Count(2, "tiktoken"), "an unknown model has the newest table"


def test_a_model_whose_table_is_not_here_is_estimated(with_table: Path) -> None:
    assert not tokens.can_count("gpt-4")
    assert tokens.count("hello world", "gpt-4") == Count(3, "estimate")


def test_nothing_said_has_no_tokens(with_table: Path) -> None:
    assert tokens.count("").tokens == 0


def test_a_text_over_the_limit_is_counted_by_its_beginning(with_table: Path) -> None:
    text = "hello world" * 40_000
    assert tokens.count(text) == Count(pytest.approx(80_000, rel=0.01), "tiktoken")


@pytest.mark.parametrize("piece", [" ", "a", "\n", "-", " \n", "日", "\ud800", "\0", "🧵"])
def test_a_text_made_to_take_long_does_not(with_table: Path, piece: str) -> None:
    with gevent.Timeout(5):
        assert tokens.count(piece * tokens.MAX_COUNTED_CHARS).tokens > 0


def test_the_loop_goes_on_while_a_long_text_is_counted(
    with_table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_sleep = gevent.monkey.get_original("time", "sleep")
    counted = tokens._count
    monkeypatch.setattr(tokens, "_count", lambda *given: (really_sleep(0.2), counted(*given))[1])
    turns = itertools.count()

    def turn() -> None:
        while True:
            next(turns)
            gevent.sleep(0.001)

    other = gevent.spawn(turn)
    try:
        tokens.count("hello world" * 10_000)
    finally:
        other.kill()
    assert next(turns) > 10


def test_a_table_is_loaded_once_for_all_who_ask_at_the_same_time(
    with_table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    read = token_tables._read
    monkeypatch.setattr(token_tables, "_read", lambda *given: (reads.append(given), read(*given))[1])
    counts = [gevent.spawn(tokens.count, "hello world") for _ in range(20)]
    gevent.joinall(counts, timeout=10, raise_error=True)
    assert {count.value for count in counts} == {Count(2, "tiktoken")}
    assert len(reads) == 1


# Without


def test_without_a_table_it_is_an_estimate_and_nothing_is_fetched(without_tables: None) -> None:
    assert not tokens.can_count("gpt-5-mini")
    assert tokens.count("Hello, my name is Sluice.") == Count(7, "estimate")
    assert tokens.count("日本語で").tokens == 3


@pytest.mark.parametrize("contents", [b"", b"not a table", small_table()], ids=["empty", "noise", "other"])
def test_a_file_that_is_not_the_table_is_neither_believed_nor_replaced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_network: None, contents: bytes
) -> None:
    path = put_table(tmp_path, "o200k_base", contents)
    monkeypatch.setattr(tokens, "_tables", Tables(tmp_path))
    assert tokens.count("hello world") == Count(3, "estimate")
    assert not tokens.can_count("gpt-5-mini"), "it is not read again for every run"
    assert path.read_bytes() == contents


def test_a_table_that_is_gone_when_it_is_needed_is_not_fetched_either(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_network: None
) -> None:
    path = put_table(tmp_path, "o200k_base", small_table())
    monkeypatch.setattr(tokens, "_tables", Tables(tmp_path))
    path.unlink()
    assert tokens.count("hello world") == Count(3, "estimate")


def test_the_tables_are_looked_for_where_tiktoken_keeps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_GYM_CACHE_DIR", "/second")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "/first")
    assert token_tables.cache_directory() == Path("/first")
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR")
    assert token_tables.cache_directory() == Path("/second")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    assert token_tables.cache_directory() is None, "an empty name turns tiktoken's cache off"
    assert not Tables(None).has("o200k_base")
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR")
    monkeypatch.delenv("DATA_GYM_CACHE_DIR")
    assert token_tables.cache_directory().name == "data-gym-cache"


def test_tiktoken_itself_would_find_the_same_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_network: None
) -> None:
    load = importlib.import_module("tiktoken.load")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    for name, table in TABLES.items():
        put_table(tmp_path, name, name.encode())
        assert load.read_file_cached(table.url) == name.encode()


def test_our_copies_of_addresses_digests_and_patterns_are_those_of_tiktoken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    public = importlib.import_module("tiktoken_ext.openai_public")
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(
        public, "load_tiktoken_bpe", lambda url, expected_hash: asked.append((url, expected_hash)) or {}
    )
    for name, table in TABLES.items():
        made = public.ENCODING_CONSTRUCTORS[name]()
        assert (*asked.pop(), made["pat_str"]) == table


def test_models_have_the_tables_tiktoken_gives_them() -> None:
    model = importlib.import_module("tiktoken.model")
    ours = {"o200k_base", "cl100k_base"}
    expected = {
        name: encoding.replace("o200k_harmony", "o200k_base")
        for name, encoding in [
            *model.MODEL_TO_ENCODING.items(),
            *((f"{prefix}-x", encoding) for prefix, encoding in model.MODEL_PREFIX_TO_ENCODING.items()),
        ]
    }
    expected = {name: encoding for name, encoding in expected.items() if encoding in ours}
    assert {name: table_of(name) for name in expected} == expected


def test_tiktoken_is_not_imported_before_a_table_is_read() -> None:
    program = (
        "import sys; from streaming import tokens, tally; tally.Tally('gpt-5'); tokens.count('a text');"
        "print(sorted(name for name in sys.modules if name.startswith(('tiktoken', 'requests'))))"
    )
    nowhere = {**os.environ, "TIKTOKEN_CACHE_DIR": "/nowhere"}
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=nowhere
    )
    assert found.stdout.strip() == "[]"


# The estimate


@pytest.mark.parametrize("prompt", ["hi", "What is a cursor?", "日本語で答えて"])
@pytest.mark.parametrize("tokens_a_delta", [1, 3, 8])
def test_the_estimate_is_near_the_demos_own_count_however_it_comes(prompt: str, tokens_a_delta: int) -> None:
    text = answer(ChatRequest("demo", [Message("user", prompt)])).text
    own = len(tokenize(text))
    deltas = -(-own // tokens_a_delta)
    estimated = tokens.estimate(len(text.encode()), deltas)
    assert abs(estimated - own) <= 0.1 * own
    assert abs(estimated - own) <= abs(deltas - own) or tokens_a_delta == 1, "the deltas alone were nearer"


# What a run's metrics make of it


def said(*events: Any) -> Tally:
    tally = Tally("gpt-5-mini")
    tally.start()
    tally.add(events)
    return tally


def ended(tally: Tally, last: Done | Error) -> tuple[int, bool]:
    metrics = tally.last_metrics(last)
    assert metrics is not None
    return metrics.tokens, metrics.estimated


def test_the_upstreams_count_wins(with_table: Path) -> None:
    tally = said(Token("hello world"))
    assert ended(tally, Done("stop", {"completion_tokens": 17})) == (17, False)
    assert ended(tally, Done("stop", {"output_tokens": 18})) == (18, False)


@pytest.mark.parametrize("count", [None, -1, True, "7", 1.5, [7]])
def test_an_upstream_that_counts_nonsense_has_not_counted(with_table: Path, count: Any) -> None:
    assert ended(said(Token("hello world")), Done("stop", {"completion_tokens": count})) == (2, True)


def test_the_whole_text_is_counted_at_the_end_of_a_run(with_table: Path) -> None:
    tally = said(*map(Token, "hello world"))
    assert tally.metrics(None).tokens == 11, "while it runs, the deltas"
    assert ended(tally, Done("cancelled")) == (2, True)


def test_what_is_not_text_counts_too(with_table: Path) -> None:
    tally = said(Reasoning("hello"), Token(" world"), ToolCall("c", "he", {"ll": 1}))
    assert ended(tally, Done("tool_calls")) == (2 + len(["he", "{", '"', "ll", '"', ":", "1", "}"]), True)


def test_a_run_ends_with_an_estimate_where_no_table_is(without_tables: None) -> None:
    tally = said(Token("Hello, my name "), Token("is Sluice."))
    assert ended(tally, Done("stop")) == (7, True)


def test_a_worker_that_stops_does_not_wait_for_a_count(with_table: Path) -> None:
    tally = said(*map(Token, "hello world"))
    assert ended(tally, Error(ErrorInfo("stopped", "interrupted", "shutdown"))) == (11, True)
    assert ended(tally, Error(ErrorInfo("too long", "upstream_timeout", "idle"))) == (2, True)


# What was asked


def test_a_run_whose_upstream_gave_no_usage_gets_an_estimated_one(with_table: Path) -> None:
    tally = Tally("demo")
    tally.start()
    tally.add([Token("hello"), Token(" world")])

    metrics = tally.last_metrics(Done("stop"), [{"role": "user", "content": "hello world"}])

    assert metrics is not None
    last = Done("stop", metrics=metrics)
    assert estimated_usage(last) == {
        "prompt_tokens": 8,
        "completion_tokens": 2,
        "total_tokens": 10,
        "estimated": True,
    }


def test_where_the_upstream_counted_nothing_is_estimated(with_table: Path) -> None:
    tally = Tally("demo")
    tally.start()
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}

    metrics = tally.last_metrics(Done("stop", usage), [{"role": "user", "content": "hello world"}])

    assert estimated_usage(Done("stop", usage, metrics=metrics)) is None


def test_everything_a_model_is_shown_counts(with_table: Path) -> None:
    def prompt(*asked: Any) -> int:
        return tokens.prompt_tokens(asked)

    plain = prompt({"role": "user", "content": "hello"})
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA" * 99, "detail": "low"}}
    parts = [{"type": "text", "text": "hello"}, image]
    assert prompt({"role": "user", "content": parts}) == plain + 85, "an image counts, its bytes do not"
    calls = [{"id": "c", "type": "function", "function": {"name": "he", "arguments": "ll"}}]
    called = prompt({"role": "assistant", "content": "hello", "tool_calls": calls})
    assert called > plain
    tool = {"type": "function", "function": {"name": "he", "parameters": {"type": "object"}}}
    assert prompt({"role": "user", "content": "hello"}, tool) > plain + 3
    assert prompt({"type": "message", "content": [{"type": "input_text", "text": "hello"}]}) == plain


@pytest.mark.parametrize(
    "odd", [None, 7, "text", [], {"content": 7}, {"tool_calls": [None, 3]}, [[["deep"]]]]
)
def test_what_is_not_a_message_does_no_harm(with_table: Path, odd: Any) -> None:
    assert tokens.prompt_tokens([odd]) >= 0


# A whole run


@pytest.mark.parametrize("how", ["ends", "is cancelled", "fails"])
def test_the_last_event_of_a_run_has_the_better_count(
    with_table: Path, producers: Producers, log: MemoryLog, how: str
) -> None:
    gate = Gate()
    last = {"ends": [Done("stop")], "is cancelled": gate, "fails": UpstreamTruncated("cut")}[how]
    source = ScriptedSource(list(map(Token, "hello world")), last)
    new = new_stream(log, producers.worker_id)
    stream_id = log.create(new, [encode(Start(new.stream_id, "chat", "gpt-5-mini", 0))])
    producers.start(Claim(stream_id, 1), 1, source, Prompt("gpt-5-mini", []))
    if how == "is cancelled":
        gate.reached.wait(2)
        assert producers.cancel(stream_id, timeout=2)
    ended_as(log, stream_id)
    told = all_events(log, stream_id)[-1]
    assert isinstance(told, Done | Error)
    assert told.metrics is not None
    assert (told.metrics.tokens, told.metrics.estimated) == (2, True)
