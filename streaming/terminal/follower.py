"""Follow a stream to its end, over a network that fails.

What it gives out is the stream's log: in order, nothing lost and nothing twice.
A connection that is cut is opened again at the cursor; where the network holds
event streams back, which shows when a snapshot has what the stream has not, the
rest is polled. The sequence and the text's checksum are verified.
"""

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import msgspec

from streaming.terminal.client import Client, Refused, back_off_seconds
from streaming.terminal.event_stream import Message, Parser, TooLong
from streaming.terminal.transport import Broken, Silent

FIRST_EVENT_SECONDS = 5.0
SILENCE_SECONDS = 25.0
"""Longer than two heartbeats of the service."""
ALIVE_SECONDS = 5.0
"""A connection that still brings bytes after so long is one, also while it brings no event."""
POLL_SECONDS = 20.0
POLL_PAUSE_SECONDS = 0.25
MOST_DEAF = 3
"""Connections in a row that were cut without an event, while a snapshot has some."""
MOST_RESETS = 5

Link = Literal["open", "reconnecting", "polling"]


class Heard(NamedTuple):
    event: dict[str, Any]
    """A native event, or ``{"type": "reset"}``: the stream comes again from its start."""
    cursor: str


class Unverified(Exception):
    """What arrived is not what was written."""


class TimeUp(Exception):
    """The run takes longer than it may, and the service does not end it."""


class Follower:
    def __init__(
        self,
        client: Client,
        stream_id: str,
        after: str,
        patience_seconds: float,
        on_link: Callable[[Link], object],
        deadline: float = math.inf,
    ) -> None:
        """``patience_seconds`` is how long a lost service is looked for, ``deadline`` of `time.monotonic`."""
        self.cursor = after
        self._client = client
        self._stream_id = stream_id
        self._patience_seconds = patience_seconds
        self._on_link = on_link
        self._deadline = deadline
        self._text: Any = None if after else hashlib.sha256()
        """Of the text from its beginning, where that is known."""
        self._ended = False
        self._polling = False
        self._resets = 0
        self._deaf = 0
        self._failures = 0
        self._lost_at: float | None = None

    def events(self) -> Iterator[Heard]:
        """Give out what comes after the cursor; the last has ``"done": true``.

        Blocks. Raises `Broken` when the service was lost for longer than the
        patience, `Refused`, `Unverified` and `TimeUp`.
        """
        while not self._ended:
            self._check_time()
            before = self.cursor
            failure: Broken | None = None
            try:
                yield from self._poll() if self._polling else self._listen()
            except Refused as error:
                if error.type != "cursor_lost" or not self.cursor:
                    raise
                yield self._reset()
                continue
            except Broken as error:
                failure = error
            if failure is None and self.cursor == before and not (self._polling or self._ended):
                failure = Broken("it ends every connection without a word")
            if failure:
                self._lose(failure)
                if not self._polling and self.cursor == before:
                    self._suspect(isinstance(failure, Silent))
            if not self._ended and (failure or not self._polling):
                time.sleep(back_off_seconds(self._failures))
                self._failures += 1

    def _listen(self) -> Iterator[Heard]:
        opened_at = time.monotonic()
        first_seconds = SILENCE_SECONDS if self.cursor else FIRST_EVENT_SECONDS
        answer = self._client.follow(self._stream_id, self.cursor, first_seconds)
        if answer is None:
            yield from self._taken(self._client.snapshot(self._stream_id, self.cursor))
            return
        parser = Parser()
        try:
            for block in answer.blocks():
                self._check_time()
                if time.monotonic() - opened_at > ALIVE_SECONDS:
                    self._lost_at = None
                for message in parser.feed(block):
                    heard = self._heard(message)
                    if heard.event["type"] != "reset":
                        answer.expect_within(SILENCE_SECONDS)
                        self._is_alive("open")
                    yield heard
                    if self._ended or heard.event["type"] == "reset":
                        return
        except TooLong:
            raise Broken("it sends an event without an end") from None
        finally:
            answer.close()

    def _heard(self, message: Message) -> Heard:
        """Take one message; a reset when it does not come next, or is the end of another text."""
        try:
            event = msgspec.json.decode(message.data)
        except (msgspec.DecodeError, RecursionError):
            event = None
        if not isinstance(event, dict) or not isinstance(event.get("type"), str):
            raise Broken("it sends what is no event")
        if not message.id:
            # It is not in the log: this says why the connection ends.
            error = event.get("error")
            if isinstance(error, dict) and not error.get("retryable"):
                raise Refused(error)
            raise Broken("the service cannot go on now")
        if not _follows(self.cursor, message.id, event.get("n", 1)):
            return self._reset()
        self.cursor = message.id
        self._take(event)
        if event.get("done") and not self._is_whole(event):
            return self._reset()
        self._ended = bool(event.get("done"))
        return Heard(event, self.cursor)

    def _poll(self) -> Iterator[Heard]:
        found = self._client.snapshot(self._stream_id, self.cursor, POLL_SECONDS)
        self._is_alive("polling")
        yield from self._taken(found)
        if not self._ended:
            time.sleep(POLL_PAUSE_SECONDS)

    def _taken(self, found: dict[str, Any]) -> Iterator[Heard]:
        """Give out what is new in a snapshot."""
        self.cursor = str(found.get("cursor") or self.cursor)
        events = found.get("events")
        for event in events if isinstance(events, list) else _events_of(found):
            if isinstance(event, dict) and isinstance(event.get("type"), str) and not event.get("done"):
                self._take(event)
                yield Heard(event, self.cursor)
        if found["state"] not in ("queued", "running"):
            last = _end_of(found)
            self._ended = self._is_whole(last)
            yield Heard(last, self.cursor) if self._ended else self._reset()

    # What is known of the network

    def _is_alive(self, link: Link) -> None:
        self._failures = self._deaf = 0
        self._lost_at = None
        self._on_link(link)

    def _lose(self, failure: Broken) -> None:
        """Note that there is no connection; raise ``failure`` when there was none for too long."""
        now = time.monotonic()
        self._lost_at = self._lost_at or now
        if now - self._lost_at > self._patience_seconds:
            raise failure
        self._on_link("reconnecting")

    def _suspect(self, was_silent: bool) -> None:
        """Begin to poll if the stream keeps from us what a snapshot has."""
        self._deaf += 1
        if not was_silent and self._deaf < MOST_DEAF:
            return
        try:
            found = self._client.snapshot(self._stream_id, self.cursor)
        except (Broken, Refused):
            return
        self._polling = found.get("cursor") not in (None, "0.0", self.cursor)

    def _check_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise TimeUp

    # What is known of the stream

    def _take(self, event: dict[str, Any]) -> None:
        if event["type"] == "token" and self._text:
            self._text.update(str(event.get("content", "")).encode("utf-8", "replace"))

    def _reset(self) -> Heard:
        self._resets += 1
        if self._resets > MOST_RESETS:
            raise Unverified("what the service sends is not what it says it has written")
        self.cursor = ""
        self._text = hashlib.sha256()
        return Heard({"type": "reset"}, "")

    def _is_whole(self, last: dict[str, Any]) -> bool:
        seq, digest = last.get("last_seq"), last.get("text_sha256")
        if seq and str(seq) != self.cursor.partition(".")[2]:
            return False
        return not (self._text and digest) or digest == self._text.hexdigest()


def _follows(cursor: str, after: str, count: object) -> bool:
    """Say whether the place ``after``, which stands for ``count`` events, comes right after ``cursor``.

    A cursor may lie among the events that a message stands for and does not show.
    """
    try:
        gen, seq = map(int, (cursor or "0.0").split("."))
        next_gen, next_seq = map(int, after.split("."))
    except ValueError:
        return False
    return isinstance(count, int) and next_seq - count <= seq < next_seq and next_gen >= gen


def _events_of(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Make events of a snapshot that has none: the same, apart from their order."""
    for name, tag in (("reasoning", "reasoning"), ("text", "token")):
        if found.get(name):
            yield {"type": tag, "content": str(found[name])}
    for name in ("tool_calls", "tool_results", "interrupts"):
        for each in found.get(name) or ():
            if isinstance(each, dict):
                yield {"type": name.removesuffix("s"), **each}
    if found.get("sources"):
        yield {"type": "sources", "documents": found["sources"]}


def _end_of(found: dict[str, Any]) -> dict[str, Any]:
    """Return the last event; a snapshot after it has only the state it led to."""
    names = ("usage", "metrics", "last_seq", "text_sha256")
    told = {name: found[name] for name in names if found.get(name) is not None}
    error = found.get("error")
    if isinstance(error, dict) or found["state"] not in ("completed", "cancelled"):
        error = error or {"message": f"the run has ended before: {found['state']}", "type": found["state"]}
        return {"type": "error", "error": error, "done": True, **told}
    reason = found.get("finish_reason") or ("cancelled" if found["state"] == "cancelled" else None)
    return {"type": "done", "finish_reason": reason, "done": True, **told}
