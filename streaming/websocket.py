"""The protocol of ``/ws``: commands in, frames out. It knows no socket and starts no greenlet.

A frame is one JSON object. Runs are followed as readers follow them everywhere,
so a client that comes back with a cursor has lost nothing.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from gevent.event import Event as Flag
from msgspec import Struct

from streaming import shapes
from streaming.errors import CursorLost, InvalidRequest, StreamingError
from streaming.events import Cursor, json_line
from streaming.formats import Message, WireFormat
from streaming.reader import Merging, Reader
from streaming.streams import Order, Streams

MOST_FOLLOWED = 20
"""Runs on one connection at the same time."""
MAX_REQUEST_CHARS = 100


class _Command(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type"):
    pass


class Follow(_Command, frozen=True, tag="follow"):
    stream_id: str
    after: str = ""


class Pause(_Command, frozen=True, tag="pause"):
    stream_id: str | None = None


class Resume(_Command, frozen=True, tag="resume"):
    stream_id: str | None = None


class Stop(_Command, frozen=True, tag="stop"):
    stream_id: str | None = None


class Ping(_Command, frozen=True, tag="ping"):
    pass


Command = Follow | Pause | Resume | Stop | Ping
TYPES = ("start", *(str(kind.__struct_config__.tag) for kind in Command.__args__))


class Following:
    """One run as one connection follows it. It holds one page at most, also while it is paused."""

    def __init__(self, reader: Reader, source: Reader | Merging, wire_format: WireFormat) -> None:
        self.reader = reader
        self.cursor = reader.cursor
        """Of the last event that ``next`` returned."""
        self._source = source
        self._format = wire_format
        self._going = Flag()
        self._going.set()

    @property
    def stream_id(self) -> str:
        return self.reader.stream_id

    @property
    def is_paused(self) -> bool:
        return not self._going.is_set()

    @property
    def has_ended(self) -> bool:
        """Nothing comes any more: the run's last event was returned, or ``leave`` was called."""
        return self._source.ended or self._source.left

    def pause(self) -> None:
        """Let ``next`` return nothing until ``resume``. The reader stays, so the run goes on."""
        self._going.clear()

    def resume(self) -> None:
        self._going.set()

    def leave(self) -> None:
        """Make ``next`` return at once, from whichever greenlet it is waiting in."""
        self.reader.leave()
        self._going.set()

    def expel(self, error: StreamingError) -> None:
        """Make ``next`` raise ``error``, also while it is paused."""
        self.reader.expel(error)
        self._going.set()

    def next(self, seconds: float) -> list[str]:
        """Return the frames of what is ready, waiting at most ``seconds`` for it, and while it is paused.

        Raises as `Reader.next`.
        """
        records = self._source.next(seconds)
        self._going.wait()
        if self.reader.left:
            return []
        self.reader.check_admitted()
        if records:
            self.cursor = records[-1].cursor
        return [
            event_frame(self.stream_id, message)
            for record in records
            for message in self._format.encode(record)
        ]


class Answer(NamedTuple):
    frame: str
    begun: Following | None = None
    """To be followed once ``frame`` is sent."""


class Session:
    """What one client follows, and what it is answered."""

    def __init__(
        self,
        streams: Streams,
        read_order: Callable[[dict[str, Any]], Order],
        listen: Callable[[Reader], Following],
        request_id: Callable[[], str],
    ) -> None:
        self._streams = streams
        self._read_order = read_order
        self._listen = listen
        self._request_id = request_id
        self._followed: dict[str, Following] = {}
        self._latest = ""

    @property
    def followed(self) -> list[Following]:
        return list(self._followed.values())

    @property
    def is_sending(self) -> bool:
        """Whether a run is followed that is not paused."""
        return any(not following.is_paused for following in self._followed.values())

    def take(self, message: str) -> Answer:
        """Do what a client's message asks. Blocks as long as that takes; a refusal is a frame."""
        asked: Any = None
        try:
            asked = shapes.decode(message.encode(), "the frame")
            if not isinstance(asked, dict):
                raise InvalidRequest("the frame: a JSON object with a type", code="wrong_type")
            command = {name: value for name, value in asked.items() if name != "request"}
            return self._do(command, _echo(asked))
        except StreamingError as error:
            return Answer(self._refusal(error, asked if isinstance(asked, dict) else {}))

    def forget(self, following: Following) -> None:
        """To be called when ``following`` is not followed any more."""
        self._followed.pop(following.stream_id, None)

    def _do(self, asked: dict[str, Any], echo: dict[str, Any]) -> Answer:
        match _read(asked):
            case None:
                return self._start(asked, echo)
            case Follow(stream_id, after):
                return self._follow(stream_id, after, echo)
            case Pause(stream_id):
                following = self._named(stream_id)
                following.pause()
                return Answer(_frame({"type": "paused", "stream_id": following.stream_id, **echo}))
            case Resume(stream_id):
                following = self._named(stream_id)
                frame = _frame({"type": "resumed", "stream_id": following.stream_id, **echo})
                following.resume()
                return Answer(frame)
            case Stop(stream_id):
                if stream_id is None and not self._followed and self._latest:
                    stream_id = self._latest  # it ended while the client asked to stop it
                receipt = self._streams.cancel(stream_id or self._named(None).stream_id)
                # Not among the fields: its cursor is the run's, which this client may not have reached.
                told = {"type": "stopped", "stream_id": receipt.stream_id, "receipt": receipt}
                return Answer(_frame({**told, **echo}))
            case Ping():
                return Answer(_frame({"type": "pong", **echo}))

    def _start(self, asked: dict[str, Any], echo: dict[str, Any]) -> Answer:
        self._check_room()
        started = self._streams.start(self._read_order(asked))
        told = {"type": "started", "stream_id": started.stream_id, "replayed": started.replayed}
        if isinstance(thread := asked.get("thread"), str):
            told["thread"] = thread
        frame = _frame({**told, **echo})
        if started.stream_id in self._followed:
            return Answer(frame)  # asked again, under the same message_id
        return Answer(frame, self._begin(self._streams.reader(started.stream_id)))

    def _follow(self, stream_id: str, after: str, echo: dict[str, Any]) -> Answer:
        if stream_id in self._followed:
            raise InvalidRequest(
                "stream_id: it is followed on this connection already",
                code="followed",
                param="stream_id",
                status=409,
            )
        self._check_room()
        reader = self._streams.reader(stream_id, Cursor.parse(after))
        told = {"type": "following", "stream_id": stream_id, "after": after, "ended": reader.ended}
        frame = _frame({**told, **echo})
        return Answer(frame, None if reader.ended else self._begin(reader))

    def _begin(self, reader: Reader) -> Following:
        following = self._listen(reader)
        self._followed[reader.stream_id] = following
        self._latest = reader.stream_id
        return following

    def _check_room(self) -> None:
        if len(self._followed) >= MOST_FOLLOWED:
            raise InvalidRequest(
                f"{MOST_FOLLOWED} runs are followed on this connection, which is the most",
                code="too_many_runs",
                status=429,
            )

    def _named(self, stream_id: str | None) -> Following:
        if stream_id is None and len(self._followed) > 1:
            raise InvalidRequest(
                "stream_id: say which, several runs are followed here", code="required", param="stream_id"
            )
        if stream_id is None and self._followed:
            return next(iter(self._followed.values()))
        if stream_id is None or stream_id not in self._followed:
            raise InvalidRequest(
                "stream_id: it is not followed on this connection"
                if stream_id
                else "stream_id: no run is followed on this connection",
                code="not_followed",
                param="stream_id",
                status=409,
            )
        return self._followed[stream_id]

    def _refusal(self, error: StreamingError, asked: dict[str, Any]) -> str:
        named = {name: asked[name] for name in ("request", "stream_id") if _is_name(asked.get(name))}
        return _frame({"type": "error", **_told(error, self._request_id()), **named})


def dropped_frame(following: Following, error: StreamingError, request_id: str) -> str:
    """Return the frame that says why a run is not followed any more, though it may go on."""
    at = {"stream_id": following.stream_id, "cursor": str(following.cursor)}
    return _frame({"type": "dropped", **at, **_told(error, request_id)})


def event_frame(stream_id: str, message: Message) -> str:
    """Return a native event as a frame: with the run it is of, and the cursor after it.

    Not ``id``, as in an event stream: a tool call has an id of its own.

    >>> event_frame("st_1", Message(b'{"type":"token","content":"a"}', "1.3"))
    '{"type":"token","content":"a","stream_id":"st_1","cursor":"1.3"}'
    """
    event = message.data.decode()
    if event.startswith('{"type":"start",'):  # which has its stream's id
        return f'{event[:-1]},"cursor":"{message.id}"}}'
    return f'{event[:-1]},"stream_id":"{stream_id}","cursor":"{message.id}"}}'


def _read(asked: dict[str, Any]) -> Command | None:
    """Return the command that a frame holds, without its request; ``None`` for ``start``, which is an order.

    Takes ``type`` out of an order.
    """
    kind = asked.get("type")
    if kind not in TYPES:
        code = "required" if kind is None else "wrong_value"
        raise InvalidRequest(f"type: one of {', '.join(TYPES)}", code=code, param="type")
    if kind == "start":
        del asked["type"]
        return None
    try:
        command: Command = msgspec.convert(asked, Command)
    except msgspec.ValidationError as error:
        shapes.refuse(error, "the frame")
    return command


def _echo(asked: dict[str, Any]) -> dict[str, Any]:
    """Return the client's own name for its command, for the answer to bear. Raises `InvalidRequest`."""
    request = asked.get("request")
    if request is None:
        return {}
    if not _is_name(request):
        raise InvalidRequest(
            f"request: text of at most {MAX_REQUEST_CHARS} characters, or a whole number",
            code="wrong_value",
            param="request",
        )
    return {"request": request}


def _is_name(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_REQUEST_CHARS
    # Larger ones are not the same number in JavaScript.
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= 2**53


def _told(error: StreamingError, request_id: str) -> dict[str, Any]:
    told: dict[str, Any] = {"error": error.info(request_id=request_id)}
    if isinstance(error, CursorLost):
        told["last_id"] = error.last_id
    if error.status in (429, 503):
        told["retry_after_seconds"] = error.retry_after_seconds or 1
    return told


def _frame(told: dict[str, Any]) -> str:
    return json_line(told).decode()
