"""One record is one line, whatever is in it, and no line holds a secret."""

import json
import logging
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming import logs

BREAKS = [
    "\r",
    "\n",
    "\r\n",
    "\x1b[2J",
    "\u2028",
    "\u2029",
    "\x85",
    "\x0b",
    "\x0c",
    "\x00",
    "\x9b31m",
    "\u202e",
]
KEYS = [
    "sk-sluice-abcd1234-0123456789abcdefghijABCDEFGHIJ01",
    "sk-proj-Ab_c-123456789",
    "Bearer sk-sluice-abcd1234-xyzxyzxyz",
    "Authorization: Bearer abcdefgh.1234",
    "Basic dXNlcjpwYXNzd29yZA==",
    "{'api_key': 'opaque-secret-1'}",
    '{"api_key": "opaque-secret-1"}',
    "x-api-key: opaque-secret-1",
    "Cookie: theme=dark; session=opaque-secret-1",
    "Set-Cookie: __Host-sluice=opaque-secret-1; Path=/",
    "redis://default:opaque-secret-1@127.0.0.1:6379/0",
    "eyJhbGciOiJIUzI1NiJ9.opaquesecret1.c2lnbmF0dXJl",
    "https://host/v1?api_key=opaque-secret-1&x=1",
    "password=opaque-secret-1",
]
SECRET = re.compile(r"opaque|0123456789abc|xyzxyz|proj-Ab|abcdefgh\.1234|dXNlcjpw|c2lnbmF0", re.IGNORECASE)


def write(
    message: Any, *arguments: Any, to: str = "text", name: str = "streaming.test", **record: Any
) -> str:
    """Return what a record becomes."""
    formatter = logs.JSONFormatter() if to == "json" else logs.LineFormatter()
    fields = record.pop("extra", {})
    made = logging.LogRecord(name, logging.WARNING, "file.py", 1, message, arguments, record.get("exc_info"))
    vars(made).update(fields)
    return formatter.format(made)


def raised(error: BaseException) -> Any:
    try:
        raise error
    except BaseException:
        return sys.exc_info()


@pytest.mark.parametrize("to", ["text", "json"])
@pytest.mark.parametrize("text", BREAKS)
def test_nobody_can_write_a_line_of_their_own(text: str, to: str) -> None:
    forged = f"x{text}2026-11-21T00:00:00.000Z INFO stream ended stream_id=st_forged"
    for line in (
        write("a request", to=to, extra={"model": forged}),
        write("a %s", forged, to=to),
        write(forged, to=to),
        write("a field's name", to=to, extra={forged: 1}),
    ):
        assert line.isprintable(), line
        assert len(line.splitlines()) == 1


@pytest.mark.parametrize("text", BREAKS)
def test_an_exception_cannot_write_a_record_either(text: str) -> None:
    forged = f"x{text}2026-11-21T00:00:00.000Z INFO stream ended"
    line = write("it broke", exc_info=raised(ValueError(forged)))
    first, *rest = line.split("\n")
    assert first.endswith("WARNING it broke")
    assert all(each.startswith("    ") and each.isprintable() for each in rest)
    assert "ValueError" in line
    found = json.loads(write("it broke", to="json", exc_info=raised(ValueError(forged))))
    assert forged.partition(text)[2] in found["exception"]


@pytest.mark.parametrize("to", ["text", "json"])
@pytest.mark.parametrize("key", KEYS)
def test_what_looks_like_a_key_is_in_no_line(key: str, to: str) -> None:
    for line in (
        write(key, to=to),
        write("a %s", key, to=to),
        write("a %r", {"headers": key}, to=to),
        write("a field", to=to, extra={"why": key}),
        write("it broke", to=to, exc_info=raised(RuntimeError(key))),
        write("another library", to=to, name="urllib3", extra={"headers": [key]}),
    ):
        assert not SECRET.search(line), line
        assert "taken out" in line
        if to == "json":
            json.loads(line)


def test_what_is_no_key_stays() -> None:
    said = "stream_id=st_jfd4okf6bpkk2erenaibb2ypjknwubvsut request_id=req_0123 task-force risk-averse"
    assert logs.redacted(said) == said
    assert "session_id=s1" in write("a phrase", extra={"session_id": "s1"})


def test_arguments_that_do_not_fit_harm_nobody() -> None:
    assert "do not fit" in write("%d of %s", "secret")
    assert "secret" not in write("%d of %s", "secret")
    assert write("100% sure %s").endswith("100% sure %s")


class Unshowable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


@pytest.mark.parametrize("to", ["text", "json"])
def test_what_cannot_be_made_a_text_harms_nobody(to: str) -> None:
    assert "Unshowable" in write("a field", to=to, extra={"value": Unshowable()})
    assert "do not fit" in write("a %s", Unshowable(), to=to)
    assert "Unshowable" in write("it broke", to=to, exc_info=raised(Unshowable()))


@pytest.mark.parametrize("to", ["text", "json"])
def test_a_megabyte_is_cut(to: str) -> None:
    huge = "x" * 1_000_000
    assert len(write("a field", to=to, extra={"value": huge})) < 2000
    assert len(write("a %s", huge, to=to)) < 6000
    assert len(write("it broke", to=to, exc_info=raised(ValueError(huge)))) < 20_000


@given(st.text(), st.text(max_size=20), st.one_of(st.text(), st.integers(), st.floats(), st.none()))
def test_any_text_makes_one_line_and_any_record_one_object(message: str, name: str, value: Any) -> None:
    fields = {f"f{name}": value}
    assert write(message.replace("%", "%%"), extra=fields).isprintable()
    found = json.loads(write("%s", message, to="json", extra=fields))
    assert found["level"] == "WARNING"


def test_other_libraries_do_not_quote_queries() -> None:
    asked = "Error handling request /stream?prompt=my+secret+question"
    assert "secret" not in write(asked, name="gunicorn.error")
    assert "secret" not in write("GET %s", "http://host/a?prompt=secret", name="urllib3")
    assert "is it so?yes" in write("is it so?yes", name="streaming.x")


def test_a_field_with_our_own_name_does_not_hide_ours() -> None:
    found = json.loads(write("a phrase", to="json", extra={"level": "INFO", "time": "never", "n": 1}))
    assert found["level"] == "WARNING"
    assert (found["level_"], found["n"]) == ("INFO", 1)


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """Return what was written to stderr; what a test configures is put back."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level, logging.getLogger("streaming").level, sys.excepthook)
    hub = gevent.get_hub()
    yield lambda: capsys.readouterr().err
    root.handlers[:], root.level = before[0], before[1]
    logging.getLogger("streaming").setLevel(before[2])
    sys.excepthook = before[3]
    logging.captureWarnings(False)
    vars(hub).pop("print_exception", None)


def test_a_greenlet_that_breaks_is_a_record(written: Callable[[], str]) -> None:
    logs.configure("INFO")
    logs.note_greenlet_errors()

    def breaks() -> None:
        raise RuntimeError("with sk-sluice-abcd1234-xyzxyzxyz\nin it")

    gevent.spawn(breaks).join()
    text = written()
    first, *rest = text.strip().split("\n")
    assert "ERROR a greenlet broke" in first
    assert all(line.startswith("    ") for line in rest)
    assert "xyzxyz" not in text


def test_what_ends_the_process_is_a_record(written: Callable[[], str]) -> None:
    logs.configure("INFO", "json")
    sys.excepthook(*raised(RuntimeError("sk-sluice-abcd1234-xyzxyzxyz")))
    text = written()
    found = json.loads(text)
    assert (found["level"], found["message"]) == ("CRITICAL", "uncaught")
    assert "xyzxyz" not in text


def test_gunicorns_errors_are_written_by_us(written: Callable[[], str]) -> None:
    errors = logging.getLogger("gunicorn.error")
    before = errors.handlers[:], errors.propagate
    errors.handlers[:], errors.propagate = [logging.StreamHandler()], False
    try:
        logs.configure("INFO")
        errors.error("Error handling request %s", "/stream?prompt=secret\nforged")
    finally:
        errors.handlers[:], errors.propagate = before
    text = written()
    assert len(text.splitlines()) == 1
    assert "secret" not in text
