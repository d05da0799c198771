"""The service's log: one line for each record, whatever is in it, and never a secret.

A record is a constant phrase and fields. What came from outside is in fields
only, escaped and cut, so that nobody can write a line of their own. Last of
all, whatever looks like a key is taken out of the finished line: also of
exceptions, and of what other libraries write.
"""

import functools
import json
import logging
import re
import sys
import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, TextIO

from streaming import tracebacks

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
LONGEST_FIELD = 1000
LONGEST_MESSAGE = 4000
LONGEST_EXCEPTION = 16_000
TAKEN_OUT = "[taken out]"

_SECRETS = (
    # Keys of this service, of OpenAI and of the many servers that took over its form.
    (re.compile(r"\b(?:sk|pk|rk)-[A-Za-z0-9_-]{6,}"), TAKEN_OUT),
    (re.compile(r"(?i)\b(bearer|basic)(\s+|%20)[A-Za-z0-9._~+/=-]{6,}"), rf"\1 {TAKEN_OUT}"),
    # Headers, cookies and the fields of bodies, as they are written in code, in JSON and in URLs.
    (
        re.compile(
            r"(?i)(\b(?:authorization|proxy-authorization|api[-_]?key|x-api-key|password|secret|client_secret"
            r"|csrf_token|session)\b\\?[\"']?\s*[:=]\s*b?\\?[\"']?)(?!\[taken out\])[^\s\"'\\,;&}]+"
        ),
        rf"\1{TAKEN_OUT}",
    ),
    (re.compile(r"(?i)(\b(?:set-)?cookie\b\\?[\"']?\s*[:=,]\s*b?\\?[\"']?)[^\"'\n]+"), rf"\1{TAKEN_OUT}"),
    (re.compile(r"__Host-[\w-]+=[^\s\"'\\;]+"), f"__Host-{TAKEN_OUT}"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?"), TAKEN_OUT),
    # The password of a URL.
    (re.compile(r"(\w+://[^\s/:@\"']*):[^\s/@\"']+@"), rf"\1:{TAKEN_OUT}@"),
)
# One of these is in whatever those patterns find. Most lines have none, and are not looked at closer.
_SIGNS = (
    *("sk-", "pk-", "rk-", "bearer", "basic", "authorization", "api", "password", "secret"),
    *("csrf", "session", "cookie", "__host-", "eyj", "://"),
)
# Other libraries quote the addresses they are asked for, and a prompt may be in one.
_QUERY = re.compile(r"(/[^\s?\"']*)\?[^\s\"']*")


def redacted(text: str) -> str:
    """Return ``text`` without what looks like a key, a cookie or a password.

    >>> redacted("401 for Bearer abcdef123456 and sk-proj-123456")
    '401 for Bearer [taken out] and [taken out]'
    """
    lower = text.lower()
    if any(sign in lower for sign in _SIGNS):
        for pattern, instead in _SECRETS:
            text = pattern.sub(instead, text)
    return text


_plain = re.compile(r"[^\s=\"'\\]+").fullmatch


class _Formatter(logging.Formatter, ABC):
    """What both formats have in common. It raises for no record."""

    def __init__(self, full: bool = False) -> None:
        """With ``full``, exceptions are shown with their own words."""
        super().__init__()
        self.full = full

    def format(self, record: logging.LogRecord) -> str:
        said = {
            name: value if type(value) in _SHORT else _cut(_text(value), LONGEST_FIELD)
            for name, value in vars(record).items()
            if name not in _STANDARD
        }
        return redacted(self.line(record, _cut(_message(record), LONGEST_MESSAGE), said, self._error(record)))

    @abstractmethod
    def line(self, record: logging.LogRecord, message: str, said: dict[str, Any], error: str) -> str:
        """Return what is written of a record: its message, its fields and its exception, all bounded."""

    def _error(self, record: logging.LogRecord) -> str:
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return ""
        try:
            return _cut(_without_query(record, tracebacks.shown(error, self.full)), LONGEST_EXCEPTION)
        except Exception as failure:  # an exception whose own text cannot be made
            return f"{type(error).__name__}, which cannot be shown: {type(failure).__name__}"


class LineFormatter(_Formatter):
    """For people: time, level, phrase, then ``name=value``. An exception follows, indented."""

    def line(self, record: logging.LogRecord, message: str, said: dict[str, Any], error: str) -> str:
        line = f"{_moment(record)} {record.levelname} {_escaped(message)}"
        for name, value in said.items():
            if value is None or value == "":
                continue
            line += f" {_escaped(name)}={_quoted(value)}"
        for each in error.split("\n") if error else ():
            line += "\n    " + _escaped(each)
        return line


class JSONFormatter(_Formatter):
    """For machines: one JSON object, in ASCII."""

    def line(self, record: logging.LogRecord, message: str, said: dict[str, Any], error: str) -> str:
        fields = {
            "time": _moment(record),
            "level": record.levelname,
            "logger": record.name,
            "message": message,
            **{name if name not in _OURS else f"{name}_": value for name, value in said.items()},
        }
        if error:
            fields["exception"] = error
        try:
            return json.dumps(fields, allow_nan=False)
        except ValueError:  # JSON has no word for what is no number
            return json.dumps({name: _text(value) for name, value in fields.items()})


_OURS = frozenset({"time", "level", "logger", "message", "exception"})


_SHORT = frozenset({int, float, bool, type(None)})


def _moment(record: logging.LogRecord) -> str:
    return f"{_second(int(record.created))}.{int(record.msecs):03d}Z"


@functools.lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _message(record: logging.LogRecord) -> str:
    try:
        message = record.getMessage()
    except Exception:  # its arguments do not fit, or cannot be made a text
        message = f"{record.msg!s:.200} (the arguments do not fit)"
    return _without_query(record, message)


def _without_query(record: logging.LogRecord, text: str) -> str:
    return text if record.name.startswith("streaming") else _QUERY.sub(r"\1?…", text)


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception as error:
        return f"a {type(value).__name__} that cannot be shown: {type(error).__name__}"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"


def _escaped(text: str) -> str:
    """Return ``text`` without anything that would end the line or move a terminal's cursor."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def _quoted(value: object) -> str:
    text = str(value)
    # One field stays one field, whatever it holds.
    return text if _plain(text) and text.isprintable() else repr(text)


class _Stream(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:
        """Lose the record. What the library does instead would print its arguments as they are."""


def configure(level: str, log_format: str = "text", full_exceptions: bool = False) -> None:
    """Send this service's records to stderr. Other libraries' only from WARNING on.

    So it is with Python's warnings, and with what ends a greenlet or the process unexpectedly.
    """
    handler = _Stream(sys.stderr)
    kind = JSONFormatter if log_format == "json" else LineFormatter
    handler.setFormatter(kind(full_exceptions))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("streaming").setLevel(level)
    _take_over_gunicorn()
    logging.captureWarnings(True)
    sys.excepthook = _note_uncaught


def _take_over_gunicorn() -> None:
    """Have gunicorn's errors written here too: by itself it quotes whole addresses, with their queries."""
    errors = logging.getLogger("gunicorn.error")
    if errors.handlers:
        errors.handlers.clear()
        errors.propagate = True


def _note_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("streaming").critical("uncaught", exc_info=(kind, error, trace))


def note_greenlet_errors() -> None:
    """Have what ends a greenlet unexpectedly written as a record, not as gevent prints it."""
    import gevent

    def print_exception(context: object, kind: Any, value: Any, trace: Any) -> None:
        if kind is not None:
            logging.getLogger("streaming").error("a greenlet broke", exc_info=(kind, value, trace))

    gevent.get_hub().print_exception = print_exception
