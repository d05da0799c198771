"""An OpenAI-compatible upstream that misbehaves as told, and logs what it saw.

``python tests/live/upstream.py --port 0`` prints its port and serves until it
is killed. What one request gets is said by a JSON script in the last user
message, between ``<<`` and ``>>``::

    <<{"play": "cut", "after": 2, "tokens": 5, "pace_ms": 50, "token": "t-1"}>>

Keys of every play: ``token`` (the request is logged under it), ``attempts_fail``
(only the first N requests of the token get the play, later ones ``ok``),
``headers_ms``, ``first_ms``, ``pace_ms`` (waits), ``gate`` (sends no more tokens
than ``POST /let?gate=NAME&tokens=N`` has said, or all when it names no number), ``tokens``,
``fill`` (pads each token to so many characters), ``for`` (other keys for a request that names that
model: ``{"for": {"m": {"play": "hang"}}}``), ``text`` with ``pieces`` (that text instead of
tokens), ``stamp`` (each token is ``@<index>:<CLOCK_MONOTONIC ns>@ ``),
``raw_chunks`` (those objects, or strings, as they are), ``ascii`` (``\\u`` escapes),
``newline``, ``bom``, ``space``, ``multiline``, ``noise`` (how events are written),
``write_bytes`` with ``write_ms`` (so many bytes a write), ``framing`` (``chunked``,
``length``, ``close``), ``finish`` and ``done`` (how it ends), ``then: "fin"`` (closes
the kept-alive connection ``fin_ms`` after the answer). ``after`` is the number of
tokens before the fault.

``GET /log?token=X``, ``GET /stats``, ``POST /reset`` and ``POST /let`` are for the test. Every
time is CLOCK_MONOTONIC in seconds, so it compares across processes of a host.
"""

import argparse
import asyncio
import gzip
import itertools
import json
import os
import socket
import struct
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

# Stands in every text of ours that the service must not show to anybody.
LEAK = "quoted-by-the-upstream"
DEFAULT_TOKENS = 20
MAX_HEAD_BYTES = 1 << 20

Script = dict[str, Any]


# What a script stands for: the tests compute the expected text with these.


def script_of(body: dict[str, Any]) -> Script:
    """Return the script in the last user message of a chat request, or ``{}``.

    >>> script_of({"messages": [{"role": "user", "content": 'hi <<{"tokens": 3}>>'}]})
    {'tokens': 3}
    """
    users = [m for m in body.get("messages", []) if m.get("role") == "user"]
    content = users[-1].get("content") if users else ""
    if isinstance(content, list):
        content = "".join(part.get("text", "") for part in content)
    start, end = (content or "").find("<<"), (content or "").rfind(">>")
    script = json.loads(content[start + 2 : end]) if 0 <= start < end else {}
    return {**script, **script.get("for", {}).get(body.get("model"), {})}


def contents(script: Script) -> list[str]:
    """Return the content of each token the script makes the upstream send.

    >>> contents({"tokens": 3})
    ['w0 ', 'w1 ', 'w2 ']
    >>> contents({"text": "abcdefg", "pieces": 3})
    ['abc', 'de', 'fg']
    """
    if "text" in script:
        text = script["text"]
        pieces = min(script.get("pieces", max(1, len(text) // 4)), len(text)) or 1
        size, longer = divmod(len(text), pieces)
        cuts = [i * size + min(i, longer) for i in range(pieces + 1)]
        return [text[a:b] for a, b in itertools.pairwise(cuts)]
    return [_word(i, script) for i in range(script.get("tokens", DEFAULT_TOKENS))]


def _word(i: int, script: Script) -> str:
    return f"w{i} ".ljust(script.get("fill", 0), "x")


# The log.


@dataclass
class Entry:
    """What happened to one chat request."""

    token: str
    connection: int
    body: dict[str, Any]
    headers: dict[str, str]
    t_received: float
    reused: bool
    """Whether the connection had carried a request before."""
    play: str = ""
    t_headers_sent: float | None = None
    t_first_token: float | None = None
    t_last_token: float | None = None
    t_closed_by_peer: float | None = None
    t_closed_by_us: float | None = None
    finished: bool = False
    sent: list[str] = field(default_factory=list)

    @property
    def authorization(self) -> str:
        return self.headers.get("authorization", "")

    def report(self) -> dict[str, Any]:
        """Return the entry as ``GET /log`` shows it."""
        shown = {name: value for name, value in vars(self).items() if name != "sent"}
        shown["authorization"] = self.authorization
        return {**shown, "sent_text": "".join(self.sent), "sent_tokens": len(self.sent)}


class Request(NamedTuple):
    """One HTTP request, read whole."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def keeps_alive(self) -> bool:
        return "close" not in self.headers.get("connection", "").lower()


class Gate:
    """Holds answers back until the test has seen what it wants to see."""

    def __init__(self) -> None:
        self._tokens = 0
        self._moved = asyncio.Event()

    def let(self, tokens: int) -> None:
        """Let so many tokens of every answer through, counted from its start."""
        self._tokens = max(self._tokens, tokens)
        self._moved.set()
        self._moved = asyncio.Event()

    async def pass_on(self, tokens: int) -> bool:
        """Return when so many may be sent: whether that had to be waited for."""
        waited = False
        while self._tokens < tokens:
            waited = True
            await self._moved.wait()
        return waited


class Hangup(Exception):
    """This play closes the connection; with ``reset`` the peer gets an RST."""

    def __init__(self, *, reset: bool = False) -> None:
        super().__init__("hang up")
        self.reset = reset


class Connection:
    """A client's connection: its number, its requests and when it went."""

    def __init__(self, number: int, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.writer = writer
        self.entries: list[Entry] = []
        self.used_for_control = False

    def note(self, token: str, body: dict[str, Any], request: Request, received: float) -> Entry:
        """Return the entry of a request that came here."""
        entry = Entry(token, self.number, body, request.headers, received, reused=bool(self.entries))
        self.entries.append(entry)
        return entry

    def peer_closed(self) -> None:
        """Note that the client's side of the socket is closed now."""
        now = time.monotonic()
        for entry in self.entries:
            if entry.t_closed_by_peer is None and entry.t_closed_by_us is None:
                entry.t_closed_by_peer = now

    def close(self, *, reset: bool) -> None:
        """Close it from this side, with a FIN after all that was written or an RST now."""
        now = time.monotonic()
        for entry in self.entries:
            if entry.t_closed_by_peer is None and entry.t_closed_by_us is None:
                entry.t_closed_by_us = now
        if reset:
            linger = struct.pack("ii", 1, 0)
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.writer.transport.abort()
        else:
            self.writer.close()


# The server: connections, requests, control.


class Server:
    """Accepts connections, plays scripts and keeps the log."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._open: set[Connection] = set()
        self._gates: dict[str, Gate] = defaultdict(Gate)
        self._forget()

    def _forget(self) -> None:
        self._log: dict[str, list[Entry]] = defaultdict(list)
        self._connections: set[int] = set()
        self._requests = 0
        self._strays = 0
        self._playing = 0
        self._peak_playing = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's requests in order until either side closes it."""
        connection = Connection(next(self._numbers), writer)
        self._connections.add(connection.number)
        self._open.add(connection)
        inbox: asyncio.Queue[Request | None] = asyncio.Queue()
        # Reading goes on while an answer is played: a close is seen although we are silent.
        receiving = asyncio.create_task(_receive(reader, inbox, connection))
        reset = False
        try:
            while (request := await inbox.get()) is not None:
                playing = asyncio.create_task(self._answer(request, connection))
                await asyncio.wait({playing, receiving}, return_when=asyncio.FIRST_COMPLETED)
                if not playing.done():
                    playing.cancel()
                try:
                    await playing
                except Hangup as hangup:
                    reset = hangup.reset
                    break
                except (asyncio.CancelledError, ConnectionError):
                    break
                if not request.keeps_alive:
                    break
        except Exception:
            traceback.print_exc()
        finally:
            receiving.cancel()
            self._open.discard(connection)
            connection.close(reset=reset)

    async def _answer(self, request: Request, connection: Connection) -> None:
        path = urlsplit(request.target).path
        if path in ("/log", "/stats", "/reset", "/let"):
            connection.used_for_control = True
            self._connections.discard(connection.number)
            await _whole(connection.writer, 200, self._control(path, request))
        elif request.method == "GET" and path == "/v1/models":
            model = {"id": "test-model", "object": "model", "created": 1700000000, "owned_by": "tests"}
            await _whole(connection.writer, 200, {"object": "list", "data": [model]})
        elif request.method == "POST" and path == "/v1/chat/completions":
            await self._chat(request, connection)
        else:
            self._strays += 1
            await _whole(connection.writer, 404, {"error": {"message": f"{LEAK}: no {path}", "code": None}})

    def _control(self, path: str, request: Request) -> dict[str, Any]:
        query = parse_qs(urlsplit(request.target).query)
        if path == "/log":
            token = query.get("token", [""])[0]
            return {"token": token, "requests": [entry.report() for entry in self._log.get(token, [])]}
        if path == "/reset":
            self._forget()
        if path == "/let":
            self._gates[query["gate"][0]].let(int(query.get("tokens", [sys.maxsize])[0]))
        return {
            "connections": len(self._connections),
            "open": sum(not c.used_for_control for c in self._open),
            "requests": self._requests,
            "strays": self._strays,
            "playing": self._playing,
            "peak_playing": self._peak_playing,
        }

    async def _chat(self, request: Request, connection: Connection) -> None:
        received = time.monotonic()
        body = json.loads(request.body)
        script = script_of(body)
        self._requests += 1
        token = str(script.get("token", self._requests))
        entry = connection.note(token, body, request, received)
        entries = self._log[token]
        entries.append(entry)
        if len(entries) > script.get("attempts_fail", sys.maxsize):
            script = {**script, "play": "ok"}
        entry.play = script.get("play", "ok")
        self._playing += 1
        self._peak_playing = max(self._peak_playing, self._playing)
        try:
            gate = self._gates[script["gate"]] if "gate" in script else None
            await Player(connection.writer, entry, script, gate).play()
        finally:
            self._playing -= 1


async def _receive(
    reader: asyncio.StreamReader, inbox: asyncio.Queue[Request | None], connection: Connection
) -> None:
    """Put each request of a connection into ``inbox``, and ``None`` when the peer has closed it."""
    try:
        while True:
            first = await reader.readexactly(1)
            if not first.isalpha():
                raise ValueError("not HTTP, for example a TLS client's hello: there is nobody to answer")
            head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, target, _version = head[0].split(" ", 2)
            fields = (line.partition(":") for line in head[1:] if line)
            headers = {name.strip().lower(): value.strip() for name, _colon, value in fields}
            await inbox.put(Request(method, target, headers, await _read_body(reader, headers)))
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, ValueError):
        connection.peer_closed()
        await inbox.put(None)


async def _read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if "chunked" not in headers.get("transfer-encoding", ""):
        return await reader.readexactly(int(headers.get("content-length", 0)))
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")
    return body


REASONS = {200: "OK", 302: "Found", 307: "Temporary Redirect"}


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def _whole(
    writer: asyncio.StreamWriter, status: int, value: object, headers: dict[str, str] | None = None
) -> None:
    """Send a complete answer: bytes as they are, anything else as JSON."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    fields = {"Content-Type": "application/json", **(headers or {}), "Content-Length": str(len(body))}
    writer.write(_head(status, fields) + body)
    await writer.drain()


async def _silence() -> None:
    """Wait until the peer has gone."""
    await asyncio.Event().wait()


# What can be played.

STYLES: dict[str, Script] = {
    "ok": {},
    "no_done": {"done": False},
    "no_finish": {"finish": None},
    "neither": {"finish": None, "done": False},
    "keepalive_closed": {"then": "fin"},
    "noise": {"noise": True},
    "bom": {"bom": True},
    "cr": {"newline": "\r"},
    "crlf": {"newline": "\r\n"},
    "no_space": {"space": False},
    "multiline": {"multiline": True},
    "byte_by_byte": {"write_bytes": 1},
}


class Player:
    """Plays one script as the answer to one request.

    A play is ``play_<name>`` when it replaces the answer, ``fault_<name>`` when it
    happens inside the stream after ``after`` tokens (if it returns, the stream goes
    on), ``chunks_<name>`` when only the chunks differ, or a row of ``STYLES``.
    """

    def __init__(
        self, writer: asyncio.StreamWriter, entry: Entry, script: Script, gate: "Gate | None" = None
    ) -> None:
        self._writer = writer
        self._entry = entry
        self._gate = gate
        self._name = script.get("play", "ok")
        self._script = {**STYLES.get(self._name, {}), **script}
        self._framing = self._script.get("framing", "chunked")
        self._newline = self._script.get("newline", "\n")
        self._events = 0
        self._index = 0
        self._due: float | None = None
        self._key = entry.authorization.removeprefix("Bearer ")

    async def play(self) -> None:
        """Send the answer; raises ``Hangup`` when the connection must close after it."""
        await self._pause("headers_ms")
        if replaces := getattr(self, f"play_{self._name}", None):
            await replaces()
        elif not self._entry.body.get("stream"):
            await self._completion()
        else:
            await self._stream()
        self._entry.finished = True
        if self._script.get("then") == "fin":
            await self._pause("fin_ms")
            raise Hangup
        if self._framing == "close":
            raise Hangup

    async def _stream(self) -> None:
        fault = getattr(self, f"fault_{self._name}", None)
        chunks = getattr(self, f"chunks_{self._name}", None)
        if not (fault or chunks or self._name in STYLES):
            raise ValueError(f"no such play: {self._name}")
        await self._open_stream()
        await self._pause("first_ms")
        if chunks or "raw_chunks" in self._script:
            for value in chunks() if chunks else self._script["raw_chunks"]:
                await self._send_raw(value)
            self._script.setdefault("finish", None)
        else:
            words = contents(self._script)
            after = self._script.get("after", 0) if fault else 0
            for word in words[:after]:
                await self._send_token(word)
            if fault:
                await fault()
            for word in words[after:]:
                await self._send_token(word)
        await self._end()

    # Before, or instead of, a stream.

    async def play_reset(self) -> None:
        raise Hangup(reset=True)

    async def play_close(self) -> None:
        raise Hangup

    async def play_hang(self) -> None:
        await _silence()

    async def play_status(self) -> None:
        headers = {}
        if "retry_after" in self._script:
            headers["Retry-After"] = str(self._script["retry_after"])
        await self._answer(self._script["status"], self._error(), headers)

    async def play_redirect(self) -> None:
        headers = {"Location": f"/v1/elsewhere?{LEAK}={self._key}"}
        await self._answer(self._script.get("status", 302), b"", headers)

    async def play_html(self) -> None:
        page = f"<html><h1>{LEAK}</h1><pre>Authorization: {self._key}</pre></html>".encode()
        await self._answer(200, page, {"Content-Type": "text/html; charset=utf-8"})

    async def play_whole(self) -> None:
        await self._completion()

    async def play_json_error(self) -> None:
        await self._answer(200, self._error())

    async def play_gzip(self) -> None:
        events = [self._chunk({"content": word}) for word in contents(self._script)]
        body = b"".join(f"data: {json.dumps(event)}\n\n".encode() for event in events)
        headers = {"Content-Type": "text/event-stream", "Content-Encoding": "gzip"}
        await self._answer(200, gzip.compress(body + b"data: [DONE]\n\n"), headers)

    async def _answer(self, status: int, value: object, headers: dict[str, str] | None = None) -> None:
        self._entry.t_headers_sent = time.monotonic()
        await _whole(self._writer, status, value, headers)

    async def _completion(self) -> None:
        """Answer with one JSON object, after as long as the tokens would have taken."""
        words = contents(self._script)
        await self._pause("first_ms")
        if self._gate:
            await self._gate.pass_on(len(words))
        await asyncio.sleep(self._script.get("pace_ms", 0) / 1000 * len(words))
        message = {"role": "assistant", "content": "".join(words), "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        chunk = self._chunk({})
        self._entry.sent.extend(words)
        self._entry.t_first_token = self._entry.t_last_token = time.monotonic()
        usage = self._usage(len(words))
        await self._answer(200, {**chunk, "object": "chat.completion", "choices": [choice], "usage": usage})

    def _error(self) -> dict[str, Any]:
        """Return an error as OpenAI words it, quoting the caller's key as some upstreams do."""
        message = f"{LEAK}: Incorrect API key provided: {self._key}."
        kind = self._script.get("type", "invalid_request_error")
        return {"error": {"message": message, "type": kind, "param": None, "code": self._script.get("code")}}

    # Inside the stream.

    async def fault_stream_error(self) -> None:
        self._script.setdefault("type", "server_error")
        await self._send_event(json.dumps(self._error()))
        await self._finish_body()
        raise Hangup

    async def fault_garbage(self) -> None:
        await self._send_event(f"{{{LEAK} {self._key}")

    async def fault_not_chunk(self) -> None:
        await self._send_event(json.dumps(self._script.get("value", {LEAK: self._key})))

    async def fault_empty_data(self) -> None:
        await self._send_body(self._newline.join(["data:", "", "data: ", "", "data", "", ""]).encode())

    async def fault_empty_choices(self) -> None:
        await self._send_event(json.dumps({**self._chunk({}), "choices": []}))

    async def fault_nulls(self) -> None:
        nothing = {"role": None, "content": None, "tool_calls": None, "function_call": None, "refusal": None}
        chunk = {**self._chunk(nothing), "usage": None, "system_fingerprint": None, "service_tier": None}
        await self._send_event(json.dumps(chunk))
        await self._send_event(json.dumps(self._chunk({})))

    async def fault_null_delta(self) -> None:
        chunk = self._chunk({})
        chunk["choices"][0]["delta"] = None
        await self._send_event(json.dumps(chunk))

    async def fault_after_finish(self) -> None:
        for word in contents(self._script)[self._script.get("after", 0) :]:
            await self._send_token(word)
        await self._send_event(json.dumps(self._chunk({}, finish="stop")))
        await self._send_event(json.dumps(self._chunk({"content": "too late "})))
        await self._send_event(json.dumps({**self._chunk({}), "choices": [], "usage": self._usage(99)}))
        await self._send_event("[DONE]")
        await self._finish_body()
        raise Hangup

    async def fault_after_done(self) -> None:
        """Send the whole answer, then more, and never end the body."""
        await self._end(finish_body=False)
        await self._send_event(json.dumps(self._chunk({"content": "too late "})))
        await _silence()

    async def fault_done_then_silence(self) -> None:
        await self._end(finish_body=False)
        await _silence()

    async def fault_cut(self) -> None:
        """Close in the middle of an event."""
        half = json.dumps(self._chunk({"content": "never whole"}))[:-20]
        await self._send_body(f"data: {half}".encode())
        raise Hangup(reset=self._script.get("reset", False))

    async def fault_stop(self) -> None:
        """End the body properly, in the middle of the answer."""
        await self._finish_body()
        raise Hangup

    async def fault_half_open(self) -> None:
        await _silence()

    async def fault_drip_line(self) -> None:
        await self._send_body(b'data: {"id": "')
        while True:
            await self._send_body(b"x")
            await asyncio.sleep(self._script.get("drip_ms", 100) / 1000)

    async def fault_comments(self) -> None:
        """Send comments for ``comments_for_ms``, or for ever."""
        end = time.monotonic() + self._script.get("comments_for_ms", 1e9) / 1000
        while time.monotonic() < end:
            await self._send_body(f": still here{self._newline}{self._newline}".encode())
            await asyncio.sleep(self._script.get("comment_ms", 100) / 1000)

    async def fault_big_line(self) -> None:
        await self._send_body(b'data: {"choices": [{"index": 0, "delta": {"content": "')
        for _block in range(self._script.get("bytes", 1_300_000) // 50_000):
            await self._send_body(b"x" * 50_000)
        await self._send_body(b'"}}]}\n\n')

    async def fault_big_event(self) -> None:
        await self._send_body(b"data: {\n")
        for _block in range(self._script.get("bytes", 1_300_000) // 50_000):
            await self._send_body((b"data:" + b" " * 994 + b"\n") * 50)
        await self._send_body(b'data: "choices": []}\n\n')

    async def fault_endless(self) -> None:
        for i in itertools.count():
            await self._send_token(_word(i, self._script))
            await asyncio.sleep(0)  # drain() alone does not switch while the peer keeps up

    async def fault_invalid_utf8(self) -> None:
        """Send ``a<FF>b``, then a sequence that stops after two of its three bytes."""
        for wrong in (b"a\xffb ", b"c\xe2\x82d "):
            data = json.dumps(self._chunk({"content": "HERE"})).encode().replace(b"HERE", wrong)
            await self._send_body(b"data: " + data + b"\n\n")
            self._entry.sent.append(wrong.decode(errors="replace"))

    async def fault_surrogates(self) -> None:
        """Send the halves of U+1F600 in two deltas."""
        for half in ("\ud83d", "\ude00"):
            await self._send_raw(json.dumps(self._chunk({"content": half})))
        self._entry.sent.append("\N{GRINNING FACE}")

    async def fault_lone_surrogate(self) -> None:
        await self._send_raw(json.dumps(self._chunk({"content": "x\ud83dy "})))
        self._entry.sent.append("x\N{REPLACEMENT CHARACTER}y ")

    async def fault_held_surrogate(self) -> None:
        """Send a first half that nothing follows: the next delta is an ordinary one, or the end."""
        await self._send_raw(json.dumps(self._chunk({"content": "\ud83d"})))
        self._entry.sent.append("\N{REPLACEMENT CHARACTER}")

    async def fault_deep(self) -> None:
        await self._send_extra("[" * 100 + "]" * 100)

    async def fault_big_int(self) -> None:
        await self._send_extra("7" * 5000)

    async def fault_nan(self) -> None:
        await self._send_extra("NaN")

    async def _send_extra(self, value: str) -> None:
        """Send a chunk with a field of that JSON text."""
        chunk = json.dumps(self._chunk({"content": ""}))
        await self._send_event(f'{chunk[:-1]}, "x_vendor": {value}}}')

    # Other chunks than plain text.

    def chunks_tools(self) -> Iterator[dict[str, Any]]:
        call = {"index": 0, "id": "call_1", "type": "function"}
        yield self._chunk({"role": "assistant", "content": None})
        yield self._chunk({"tool_calls": [{**call, "function": {"name": "weather", "arguments": ""}}]})
        for part in ('{"ci', 'ty": "Par', 'is", "days": 3}'):
            yield self._chunk({"tool_calls": [{"index": 0, "function": {"arguments": part}}]})
        second = {"index": 1, "id": "call_2", "type": "function"}
        yield self._chunk({"tool_calls": [{**second, "function": {"name": "clock", "arguments": "{}"}}]})
        yield self._chunk({}, finish="tool_calls")

    def chunks_reasoning(self) -> Iterator[dict[str, Any]]:
        yield self._chunk({"role": "assistant", "content": ""})
        yield self._chunk({"reasoning_content": "first "})
        yield self._chunk({"reasoning_content": "second "})
        yield from self._plain()

    def chunks_refusal(self) -> Iterator[dict[str, Any]]:
        yield self._chunk({"role": "assistant", "content": None, "refusal": ""})
        yield self._chunk({"refusal": "I cannot "})
        yield self._chunk({"refusal": "say."})
        yield self._chunk({}, finish="stop")

    def chunks_logprobs(self) -> Iterator[dict[str, Any]]:
        for chunk in self._plain():
            if word := chunk["choices"][0]["delta"].get("content"):
                shown = {"token": word, "logprob": -0.25, "bytes": list(word.encode()), "top_logprobs": []}
                chunk["choices"][0]["logprobs"] = {"content": [shown], "refusal": None}
            yield chunk

    def chunks_unknown(self) -> Iterator[dict[str, Any]]:
        for chunk in self._plain():
            chunk["x_top"] = {"deep": [1, {"er": None}]}
            chunk["choices"][0]["x_choice"] = "kept"
            chunk["choices"][0]["delta"]["x_delta"] = 1.5
            yield chunk

    def chunks_two_choices(self) -> Iterator[dict[str, Any]]:
        for word in contents(self._script):
            yield self._chunk({"content": word})
            yield self._chunk({"content": word.upper()}, index=1)
        yield self._chunk({}, finish="stop")
        yield self._chunk({}, finish="length", index=1)

    def _plain(self) -> Iterator[dict[str, Any]]:
        for word in contents(self._script):
            yield self._chunk({"content": word})
        yield self._chunk({}, finish="stop")

    def _chunk(self, delta: dict[str, Any], finish: str | None = None, index: int = 0) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self._entry.token}",
            "object": "chat.completion.chunk",
            "created": 1700000000,
            "model": self._entry.body.get("model", "test-model"),
            "choices": [{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}],
        }

    def _usage(self, completion_tokens: int) -> dict[str, int]:
        prompt_tokens = 7
        return {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        }

    # Bytes.

    async def _open_stream(self) -> None:
        headers = {"Content-Type": self._script.get("content_type", "text/event-stream; charset=utf-8")}
        headers["Cache-Control"] = "no-cache"
        if self._framing == "chunked":
            headers["Transfer-Encoding"] = "chunked"
        elif self._framing == "length":
            headers["Content-Length"] = "10000000"  # only for plays that end before it
        else:
            headers["Connection"] = "close"
        self._writer.write(_head(200, headers))
        await self._writer.drain()
        self._entry.t_headers_sent = time.monotonic()
        if self._script.get("bom"):
            await self._send_body(b"\xef\xbb\xbf")

    async def _send_token(self, word: str) -> None:
        """Send one content delta when it is due and let through, the role before the first."""
        pace_seconds = self._script.get("pace_ms", 0) / 1000
        is_first = self._due is None
        if self._due is None:
            self._due = time.monotonic()
            await self._send_event(json.dumps(self._chunk({"role": "assistant", "content": ""})))
        if self._gate and await self._gate.pass_on(self._index + 1):
            self._due = time.monotonic()  # what waited is not made up for
        elif pace_seconds and not is_first:
            self._due += pace_seconds
            await asyncio.sleep(max(0.0, self._due - time.monotonic()))
        if self._script.get("stamp"):
            word = f"@{self._index}:{time.monotonic_ns()}@ "
        self._index += 1
        chunk = self._chunk({"content": word})
        indent = 1 if self._script.get("multiline") else None
        ascii_only = self._script.get("ascii", False)
        self._mark_token(word)
        await self._send_event(json.dumps(chunk, ensure_ascii=ascii_only, indent=indent))

    async def _send_raw(self, value: dict[str, Any] | str) -> None:
        if isinstance(value, str):
            await self._send_event(value)
            return
        for choice in value.get("choices") or []:
            content = (choice.get("delta") or {}).get("content")
            if content and choice.get("index", 0) == 0:
                self._mark_token(content)
        await self._send_event(json.dumps(value))
        await asyncio.sleep(self._script.get("pace_ms", 0) / 1000)

    def _mark_token(self, content: str) -> None:
        self._entry.sent.append(content)
        self._entry.t_last_token = time.monotonic()
        self._entry.t_first_token = self._entry.t_first_token or self._entry.t_last_token

    async def _end(self, *, finish_body: bool = True) -> None:
        """Send the finish reason, the usage if asked for, and ``[DONE]``."""
        done = self._script.get("done", True)
        if (finish := self._script.get("finish", "stop")) is not None:
            await self._send_event(json.dumps(self._chunk({}, finish=finish)))
        wants_usage = (self._entry.body.get("stream_options") or {}).get("include_usage")
        if wants_usage and (finish or done):
            usage = self._usage(len(self._entry.sent))
            await self._send_event(json.dumps({**self._chunk({}), "choices": [], "usage": usage}))
        if done:
            await self._send_event("[DONE]")
        if finish_body:
            await self._finish_body()

    async def _finish_body(self) -> None:
        if self._framing == "chunked":
            self._writer.write(b"0\r\n\r\n")
            await self._writer.drain()
        self._entry.finished = True

    async def _send_event(self, data: str) -> None:
        """Send one SSE event, written as the script's style asks."""
        space = " " if self._script.get("space", True) else ""
        lines = [f"data:{space}{line}" for line in data.split("\n")]
        if self._script.get("noise"):
            before = [": comment", "event: chunk", f"id: {self._events}", "retry: 10", "x-new: field", "bare"]
            # A lone "data" is an empty line of data: legal, and white space to JSON.
            lines = [*before, "data", *lines] if data != "[DONE]" else [*before, *lines]
        self._events += 1
        await self._send_body(self._newline.join([*lines, "", ""]).encode())

    async def _send_body(self, data: bytes) -> None:
        size = self._script.get("write_bytes") or len(data)
        for start in range(0, len(data), size):
            part = data[start : start + size]
            self._writer.write(b"%x\r\n%b\r\n" % (len(part), part) if self._framing == "chunked" else part)
            await self._writer.drain()
            if size < len(data):
                await asyncio.sleep(self._script.get("write_ms", 0) / 1000)

    async def _pause(self, name: str) -> None:
        if milliseconds := self._script.get(name):
            await asyncio.sleep(milliseconds / 1000)


async def _leave_with(parent: int) -> None:
    """Return when this process has lost its parent."""
    while os.getppid() == parent:
        await asyncio.sleep(0.5)


async def _main(port: int, *, with_parent: bool) -> None:
    parent = os.getppid()
    serving = await asyncio.start_server(
        Server().serve, "127.0.0.1", port, limit=MAX_HEAD_BYTES, backlog=1024
    )
    print(serving.sockets[0].getsockname()[1], flush=True)
    if with_parent:
        await _leave_with(parent)
    else:
        await serving.serve_forever()


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--port", type=int, default=0)
    options.add_argument("--with-parent", action="store_true", help="stop when the parent process ends")
    arguments = options.parse_args()
    asyncio.run(_main(arguments.port, with_parent=arguments.with_parent))
