"""Readers, creators and cancellers by the hundred, which write down all they are told.

What each of them sees goes to one log of JSON lines, which is all that
``checker.py`` needs to know about them:

``create``, ``cancel``, ``snapshot``: one exchange, with its answer;
``open``, ``msgs``, ``close``: a connection that follows a stream. A message is
``[id, n, type, text]``; the stream's last one comes with ``end``;
``told``: an error that is not an event of the stream, but why the connection ends;
``reset``: this reader was told to forget its text and to read again;
``reader_end``: this reader has gone, and why.

Times are CLOCK_MONOTONIC in seconds. After a lost connection a reader does as
the page does: it waits, asks what became of the stream, and follows again.
"""

import asyncio
import contextlib
import itertools
import json
import random
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.chaos.messages import End, EventStream, Message, ObjectLines, end_of, read_message
from tests.chaos.wire import EXCHANGE_SECONDS, Answer, Lost, Wire, connect, exchange

TERMINAL = frozenset({"completed", "cancelled", "failed", "interrupted"})
SILENCE_SECONDS = 20.0
MAX_BACK_OFF_SECONDS = 2.0


class Log:
    """JSON lines in a file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", buffering=1 << 20)

    def write(self, ev: str, **fields: object) -> None:
        self._file.write(json.dumps({"ev": ev, "t": time.monotonic(), **fields}) + "\n")

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True)
class Habits:
    """How one reader reads."""

    formats: Sequence[str] = ("native",)
    """One is chosen for each connection."""
    query: str = ""
    """Added to each address, such as ``&buffer_tokens=8``."""
    cuts: int = 0
    """How many connections it drops, each at a random moment."""
    cut_within_seconds: float = 1.0
    leaves_after_seconds: float | None = None
    polls: bool = False
    """It asks for snapshots and never follows."""
    address: str = ""
    """Followed instead of ``/streams/<id>``: that of a request that asks and listens in one."""
    asks: bool = True
    """After a lost connection it asks for the state, and takes what is new from there."""
    patience_seconds: float = 120.0
    """After which it gives up, which no reader should have to."""


class Clients:
    """All clients of one campaign: one log, one source of chance."""

    def __init__(self, ports: Sequence[int], log: Log, chance: random.Random) -> None:
        self.ports = list(ports)
        self.log = log
        self.chance = chance
        self.delivered = 0
        self.on_text: Callable[[str, float], None] = lambda text, at: None
        """Is told every text of every reader, and when it came."""
        self._readers = itertools.count(1)

    def port(self) -> int:
        return self.chance.choice(self.ports)

    async def create(
        self, token: str, body: dict[str, Any], key: str | None = None, patience_seconds: float = 60.0
    ) -> str | None:
        """Create a stream and return its id.

        With a ``key`` it asks again until there is an answer; without one, what
        may have arrived is not sent twice, and the answer is ``None``.
        """
        headers = {"Accept": "application/json"}
        if key is not None:
            headers["Idempotency-Key"] = key
        deadline = time.monotonic() + patience_seconds
        for failures in itertools.count():
            asked_at = time.monotonic()
            told = {
                "token": token,
                "key": key,
                "asked_at": asked_at,
                "on": body.get("on_disconnect", "grace"),
            }
            try:
                answer = await exchange(self.port(), "POST", "/streams", headers, body)
            except Lost as lost:
                self.log.write("create", status=0, sent=lost.sent, **told)
                if (lost.sent and key is None) or time.monotonic() > deadline:
                    return None
                await asyncio.sleep(back_off(failures))
                continue
            if answer.status in (200, 201):
                made = answer.body
                replayed = answer.headers.get("idempotent-replayed") == "true"
                self.log.write(
                    "create",
                    status=answer.status,
                    stream=made["stream_id"],
                    replayed=replayed,
                    state=made["state"],
                    **told,
                )
                return str(made["stream_id"])
            self.log.write("create", status=answer.status, error=_error_of(answer), **told)
            if answer.status != 503 or time.monotonic() > deadline:
                return None
            await asyncio.sleep(back_off(failures))
        raise AssertionError("not reached")

    async def ask(self, token: str, address: str, patience_seconds: float = 60.0) -> str | None:
        """Create a stream by asking and listening in one request; leave at once, and return its id.

        ``address`` names a ``message_id``, so it is asked again until there is an answer.
        """
        deadline = time.monotonic() + patience_seconds
        for failures in itertools.count():
            asked_at = time.monotonic()
            told = {"token": token, "key": token, "asked_at": asked_at, "on": "grace"}
            status, stream_id = await self._head_of(address)
            if status == 200:
                self.log.write(
                    "create", status=status, stream=stream_id, replayed=None, state="running", **told
                )
                return stream_id
            self.log.write("create", status=0, answered=status, **told)
            if status not in (0, 503) or time.monotonic() > deadline:
                return None
            await asyncio.sleep(back_off(failures))
        raise AssertionError("not reached")

    async def _head_of(self, address: str) -> tuple[int, str]:
        try:
            wire = await connect(self.port(), "GET", address, lambda wire, block: None)
        except Lost:
            return 0, ""
        try:
            await asyncio.wait_for(asyncio.shield(wire.head), EXCHANGE_SECONDS)
            return wire.status, wire.headers.get("stream-id", "")
        except (Lost, TimeoutError):
            return 0, ""
        finally:
            wire.close(reset=self.chance.random() < 0.5)

    async def snapshot(
        self, stream_id: str, after: str = "", wait_seconds: float = 0.0, reader: str | None = None
    ) -> Answer:
        """Return what the stream holds after ``after``. Raises ``Lost``."""
        query = f"?after={after}&wait={wait_seconds:g}" if after else f"?wait={wait_seconds:g}"
        asked_at = time.monotonic()
        answer = await exchange(
            self.port(),
            "GET",
            f"/streams/{stream_id}{query}",
            {"Accept": "application/json"},
            seconds=EXCHANGE_SECONDS + wait_seconds,
        )
        told: dict[str, Any] = {"stream": stream_id, "reader": reader, "after": after, "asked_at": asked_at}
        told["wait"] = wait_seconds
        if answer.status == 200:
            said = answer.body
            told |= {"state": said["state"], "text": said["text"], "cursor": said["cursor"]}
            if said.get("finish_reason") or said.get("error"):
                told["end"] = end_of(said)
        else:
            told["error"] = _error_of(answer)
        self.log.write("snapshot", status=answer.status, **told)
        return answer

    async def cancel(self, stream_id: str) -> str | None:
        """Cancel once; return the state in the receipt, ``None`` when there was none."""
        asked_at = time.monotonic()
        told: dict[str, Any] = {"stream": stream_id, "asked_at": asked_at}
        try:
            answer = await exchange(self.port(), "POST", f"/streams/{stream_id}/cancel")
        except Lost:
            self.log.write("cancel", status=0, **told)
            return None
        if answer.status not in (200, 202):
            self.log.write("cancel", status=answer.status, error=_error_of(answer), **told)
            return None
        receipt = answer.body
        self.log.write(
            "cancel", status=answer.status, state=receipt["state"], upstream=receipt["upstream"], **told
        )
        return str(receipt["state"])

    async def read(self, stream_id: str, habits: Habits, kind: str = "reader") -> str:
        """Read a stream to its end, by ``habits``; return how it ended."""
        reader = Reader(self, f"{kind}-{next(self._readers)}", stream_id, habits)
        how = await (reader.poll() if habits.polls else reader.follow())
        self.log.write("reader_end", reader=reader.name, stream=stream_id, how=how)
        return how

    async def never_read(self, stream_id: str, until: asyncio.Event) -> str:
        """Open a stream and read nothing of it; return what it had come to by then.

        ``dropped`` by the service, ``whole`` if all of it was in the buffers, or ``open``.
        """
        with contextlib.closing(socket.socket()) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, ("127.0.0.1", self.port()))
            path = f"/streams/{stream_id}?format=native"
            request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
            await loop.sock_sendall(sock, request.encode())
            await until.wait()
            tail = b""
            try:
                while data := await asyncio.wait_for(loop.sock_recv(sock, 1 << 18), 10.0):
                    tail = (tail + data)[-5:]
            except TimeoutError:
                return "open"
            except OSError:
                return "dropped"
            return "whole" if tail == b"0\r\n\r\n" else "dropped"


def _error_of(answer: Answer) -> object:
    """Return the error object of a refusal, or its first bytes where it is of another shape."""
    if isinstance(answer.body, dict):
        return answer.body.get("error")
    return f"not JSON: {bytes(answer.body[:200])!r}"


class Reader:
    """One reader of one stream, over as many connections as it takes."""

    def __init__(self, clients: Clients, name: str, stream_id: str, habits: Habits) -> None:
        self.name = name
        self._clients = clients
        self._log = clients.log
        self._chance = clients.chance
        self._stream_id = stream_id
        self._habits = habits
        self._cuts_left = habits.cuts
        self._cursor = ""
        self._ended = False
        now = time.monotonic()
        self._gives_up_at = now + habits.patience_seconds
        self._leaves_at = now + (habits.leaves_after_seconds or 1e9)

    async def follow(self) -> str:
        """Listen, and come back after whatever ends a connection before the stream."""
        failures = 0
        while not self._ended:
            now = time.monotonic()
            if now > self._leaves_at:
                return "left"
            if now > self._gives_up_at:
                return "gave up"
            before = self._cursor
            how = await self._listen()
            if self._ended:
                break
            if how == "cut by us":
                await asyncio.sleep(self._chance.choice((0.0, 0.0, 0.02, 0.3)))
                continue
            failures = 0 if self._cursor != before else failures + 1
            if how.startswith("status 4") and not self._meet_refusal(how):
                return how
            await asyncio.sleep(back_off(failures))
            if self._habits.asks and (outcome := await self._ask()):
                return outcome
        return "ended"

    async def poll(self) -> str:
        """Ask for what is new until there is nothing more to come."""
        failures = 0
        while True:
            now = time.monotonic()
            if now > self._leaves_at:
                return "left"
            if now > self._gives_up_at:
                return "gave up"
            outcome = await self._ask(self._chance.choice((0.0, 0.3, 2.0)))
            if outcome:
                return outcome
            failures = failures + 1 if outcome is None else 0
            await asyncio.sleep(back_off(failures) if outcome is None else self._chance.random() / 4)

    async def _listen(self) -> str:
        """Follow over one connection; return how it ended."""
        wire_format = self._chance.choice(list(self._habits.formats))
        if wire_format == "ndjson":
            self._reset("ndjson begins at the start")
        parser = ObjectLines() if wire_format == "ndjson" else EventStream()
        address = self._habits.address or f"/streams/{self._stream_id}?"
        headers, path = {}, f"{address}&format={wire_format}{self._habits.query}"
        if self._cursor and self._chance.random() < 0.5:
            headers["Last-Event-ID"] = self._cursor
        elif self._cursor:
            path += f"&after={self._cursor}"

        def take(wire: Wire, block: bytes) -> None:
            if wire.status == 200:
                self._take(wire.number, [read_message(wire_format, *event) for event in parser.feed(block)])

        try:
            wire = await connect(self._clients.port(), "GET", path, take, headers)
        except Lost:
            self._log.write("refused", reader=self.name, stream=self._stream_id)
            return "refused"
        number = wire.number
        self._log.write(
            "open",
            conn=number,
            reader=self.name,
            stream=self._stream_id,
            format=wire_format,
            after=self._cursor,
        )
        how = await self._hold(wire)
        start, end = wire.longest_silence
        self._log.write(
            "close",
            conn=number,
            reader=self.name,
            stream=self._stream_id,
            how=how,
            status=wire.status,
            silence=[start, end],
        )
        if wire_format == "ndjson" and not self._ended:
            self._reset("ndjson has no ids to continue from")
        if wire.status == 204:
            # Only the terminal event's cursor is answered so; what it was is for the status to say.
            return "status 204"
        return how if wire.status in (0, 200) else f"status {wire.status}"

    async def _hold(self, wire: Wire) -> str:
        """Wait until the connection ends, by the server or by our habits."""
        leaves_in = self._leaves_at - time.monotonic()
        cuts_in = 1e9
        if self._cuts_left:
            self._cuts_left -= 1
            cuts_in = self._chance.random() * self._habits.cut_within_seconds
        deadline = time.monotonic() + min(leaves_in, cuts_in)
        try:
            while not wire.ended.done():
                now = time.monotonic()
                if now >= deadline:
                    return "left" if leaves_in < cuts_in else "cut by us"
                if self._ended:
                    # The last event is there; the end of the body follows, or is not worth waiting for.
                    await asyncio.wait({wire.ended}, timeout=2.0)
                    return "ended"
                if now - wire.last_byte_at > SILENCE_SECONDS or now > self._gives_up_at:
                    return "silent"
                await asyncio.wait({wire.ended}, timeout=min(deadline - now, 0.5))
            return wire.ended.result()
        finally:
            wire.close(reset=self._chance.random() < 0.5)

    def _take(self, number: int, read: list[tuple[Message, End | None]]) -> None:
        if not read:
            return
        messages = [message for message, _ in read]
        fields: dict[str, Any] = {"m": messages}
        now = time.monotonic()
        if (end := read[-1][1]) and not self._is_event(read[-1][0], end):
            self._tell(end)
            read.pop()
            messages.pop()
        for message, end in read:
            self._cursor = message[0] or self._cursor
            self._clients.on_text(message[3], now)
            if end is not None:
                self._ended = True
                fields["end"] = end
        self._clients.delivered += len(messages)
        if messages:
            self._log.write("msgs", conn=number, reader=self.name, stream=self._stream_id, **fields)

    @staticmethod
    def _is_event(message: Message, end: End) -> bool:
        """Say whether it is the stream's: what only ends a connection has no id and no place."""
        return bool(message[0]) or "last_seq" in end

    def _tell(self, end: End) -> None:
        self._log.write("told", reader=self.name, stream=self._stream_id, why=end["why"])
        if end["why"].startswith("cursor_lost/"):
            self._reset("cursor_lost")

    async def _ask(self, wait_seconds: float = 0.0) -> str | None:
        """Ask what became of the stream, and take what is new; return how the reading ended.

        ``None`` means that nobody answered, "" that the stream goes on.
        """
        try:
            answer = await self._clients.snapshot(self._stream_id, self._cursor, wait_seconds, self.name)
        except Lost:
            self._log.write("refused", reader=self.name, stream=self._stream_id)
            return None
        if answer.status == 200:
            self._cursor = answer.body["cursor"]
            return "ended" if answer.body["state"] in TERMINAL else ""
        how = f"status {answer.status}"
        if answer.status >= 500 or self._meet_refusal(how, answer):
            return None
        return how

    def _meet_refusal(self, how: str, answer: Answer | None = None) -> bool:
        """Return whether to go on after a refusal: only a lost cursor can be mended."""
        if answer is None:
            return True  # the status, asked for next, says which refusal it is
        if isinstance(answer.body, dict) and answer.body.get("error", {}).get("type") == "cursor_lost":
            self._reset("cursor_lost")
            return True
        return False

    def _reset(self, why: str) -> None:
        self._log.write("reset", reader=self.name, stream=self._stream_id, why=why)
        self._cursor = ""


def back_off(failures: int) -> float:
    """Return the seconds to wait, as the page does, but not as patiently."""
    return min(0.25 * 2**failures, MAX_BACK_OFF_SECONDS) * (0.5 + random.random() / 2)


def prompt_of(script: dict[str, Any]) -> str:
    """Return a prompt that carries a script for the upstream."""
    return f"please <<{json.dumps(script)}>>"


def address_of_ask(script: dict[str, Any], message_id: str) -> str:
    """Return the address that asks for a script and listens in one request."""
    return f"/stream?prompt={quote(prompt_of(script))}&message_id={message_id}"
