"""Small working parts that stand in for the real ones, and what it takes to look at a stream.

Nothing here is a mock: a source that follows a script, a log that can be out of
order for a while, a parser of event streams written after the standard.
"""

import codecs
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import gevent
from gevent.event import Event as Flag

from streaming import scope
from streaming.errors import StoreUnavailable
from streaming.eventlogs import Claim, EventLog, NewStream, Spent, State, new_stream_id
from streaming.eventlogs.memory import MemoryLog
from streaming.events import Done, Event, Record, Token, decode
from streaming.sources import Batches, Prompt


def eventually(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Return what ``condition`` returns once it is true; fail when it is not within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"still not true after {seconds} s"
        gevent.sleep(0.002)
    return found


# Sources


class Gate:
    """A step of a script: wait, as for an upstream, until it is opened."""

    def __init__(self) -> None:
        self.reached = Flag()
        self._opened = Flag()

    def open(self) -> None:
        self._opened.set()

    def wait(self) -> None:
        self.reached.set()
        with scope.current().waiting():
            self._opened.wait()


Step = Sequence[Event] | BaseException | Gate | float | Callable[[], object]


class ScriptedSource:
    """A `Source` that does what its steps say.

    A list of events is yielded, an exception raised, a gate or so many seconds
    waited for, and anything else called.
    """

    def __init__(self, *steps: Step) -> None:
        self._steps = steps
        self.opened = 0
        self.closed = 0
        self.prompts: list[Prompt] = []

    def events(self, prompt: Prompt) -> Batches:
        self.opened += 1
        self.prompts.append(prompt)
        try:
            for step in self._steps:
                if isinstance(step, BaseException):
                    raise step
                if isinstance(step, Gate):
                    step.wait()
                elif isinstance(step, float):
                    scope.current().sleep(step)
                elif callable(step):
                    step()
                else:
                    yield step
        finally:
            self.closed += 1


PROMPT = Prompt("demo", [{"role": "user", "content": "hello"}])


def says(*words: str) -> list[list[Event]]:
    """Return the steps of a source that says these words, one batch each, and finishes."""
    return [*([Token(word)] for word in words), [Done("stop")]]


# Logs


class UnsteadyLog(MemoryLog):
    """A memory log whose named methods raise `StoreUnavailable` while they are in ``broken``."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: set[str] = set()
        self.refused = 0

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and name not in ("broken", "refused") and name in self.broken:
            return self._refuse
        return super().__getattribute__(name)

    def _refuse(self, *_: object, **__: object) -> Any:
        self.refused += 1
        raise StoreUnavailable("the store is away for a while")


class ForgetfulLog(MemoryLog):
    """A memory log whose next appends are written, but answered as if the store were away."""

    def __init__(self) -> None:
        super().__init__()
        self.lost_answers = 0

    def append(
        self,
        claim: Claim,
        seq: int,
        payloads: Sequence[bytes],
        end: State | None = None,
        spent: Spent | None = None,
    ) -> bool:
        cancelled = super().append(claim, seq, payloads, end, spent)
        if self.lost_answers:
            self.lost_answers -= 1
            raise StoreUnavailable("the answer was lost")
        return cancelled


def new_stream(log: EventLog, worker_id: str = "worker", **fields: Any) -> NewStream:
    return NewStream(new_stream_id(log.store_id), worker_id, b"{}", **fields)


def all_records(log: EventLog, stream_id: str, after: int = 0, limit: int = 256) -> list[Record]:
    """Return the whole stream, page by page."""
    found: list[Record] = []
    while True:
        page = log.read(stream_id, after, limit)
        found += page.records
        if not page.records:
            return found
        after = page.records[-1].seq


def all_events(log: EventLog, stream_id: str) -> list[Event]:
    return [decode(record.payload) for record in all_records(log, stream_id)]


def text_of(events: Iterable[Event]) -> str:
    return "".join(event.content for event in events if isinstance(event, Token))


def ended(log: EventLog, stream_id: str, seconds: float = 20.0) -> State:
    """Wait for the end of a stream and return its state."""
    eventually(lambda: log.head(stream_id).ended, seconds)
    return log.head(stream_id).state


@contextmanager
def running(*bodies: Callable[[], object]) -> Any:
    """Run each body in its own greenlet meanwhile; a failure of one is raised at the end."""
    greenlets = [gevent.spawn(body) for body in bodies]
    try:
        yield greenlets
        gevent.joinall(greenlets, timeout=30, raise_error=True)
        assert all(greenlet.ready() for greenlet in greenlets), "a greenlet hangs"
    finally:
        gevent.killall(greenlets)


# Event streams


class Heard(NamedTuple):
    """One dispatched event."""

    data: str
    last_event_id: str
    type: str = "message"


class EventSourceParser:
    """What a browser makes of a ``text/event-stream``, byte by byte.

    Source: HTML Living Standard 9.2.6, "Interpreting an event stream". Written
    for being obviously right, not fast. ``strict`` refuses what the standard
    passes over but no server of ours should send.
    """

    def __init__(self, strict: bool = True) -> None:
        self.heard: list[Heard] = []
        self.comments: list[str] = []
        self.retry: int | None = None
        self.last_event_id = ""
        self._strict = strict
        self._decoder = codecs.getincrementaldecoder("utf-8")("strict" if strict else "replace")
        self._line = ""
        self._at_start = True
        self._after_cr = False
        self._data: list[str] = []
        self._type = ""
        self._id = ""

    def feed(self, block: bytes) -> None:
        for place in range(len(block)):
            for char in self._decoder.decode(block[place : place + 1]):
                self._take(char)

    def _take(self, char: str) -> None:
        if self._at_start:
            self._at_start = False
            if char == "\ufeff":
                return
        after_cr, self._after_cr = self._after_cr, char == "\r"
        if char == "\n" and after_cr:
            return
        if char in "\r\n":
            line, self._line = self._line, ""
            self._end_line(line)
        else:
            self._line += char

    def _end_line(self, line: str) -> None:
        if not line:
            self._dispatch()
        elif line.startswith(":"):
            self.comments.append(line[1:])
        else:
            name, _, value = line.partition(":")
            self._set(name, value.removeprefix(" "))

    def _set(self, name: str, value: str) -> None:
        match name:
            case "data":
                self._data.append(value)
            case "event":
                self._type = value
            case "id":
                if "\0" not in value:
                    self._id = value
            case "retry":
                if value.isascii() and value.isdigit():
                    self.retry = int(value)
            case _:
                assert not self._strict, f"no field of an event stream is called {name!r}"

    def _dispatch(self) -> None:
        self.last_event_id = self._id
        if self._data:
            self.heard.append(Heard("\n".join(self._data), self._id, self._type or "message"))
        self._data = []
        self._type = ""


def parse_event_stream(body: bytes) -> EventSourceParser:
    """Parse a whole body, which must end with a complete event or a comment."""
    parser = EventSourceParser()
    parser.feed(body)
    return parser
