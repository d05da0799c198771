"""A chat upstream for load: cheap for hundreds of streams, and exact about what it sent.

``python tests/chaos/upstream.py --log FILE`` prints its port and serves until
SIGTERM. A request is told what to get by a JSON script in its prompt, between
``<<`` and ``>>``, as in ``tests/live/upstream.py``; the keys are:

``token`` (the request is logged under it, and every word of its text holds it),
``words``, ``pace_ms`` (between words), ``first_ms`` (before the first), ``last_ms``
(between the last word and the finish reason), ``fill`` (pads each word to so many
characters), ``stamp`` (each word holds the time it was sent at, in ns of
CLOCK_MONOTONIC), ``stall`` (``[after, ms]``: silence after so many words),
``fault`` with ``after`` (``cut``: FIN without an end; ``reset``: RST; ``no_done``;
``no_finish``; ``status``: 503), ``attempts_fail`` (only the first N requests of
the token get the fault).

The log is JSON lines: ``request`` when one is there, ``end`` when it is over, with
the exact text sent and who ended it. Times are CLOCK_MONOTONIC in seconds.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import signal
import socket
import struct
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, TextIO

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.live.upstream import script_of

Script = dict[str, Any]
FLUSH_SECONDS = 0.5
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def word(script: Script, number: int) -> str:
    r"""Return one word of a script's text: whose it is and where it stands can be read off it.

    >>> [word({"token": "a"}, number) for number in (0, 7, 15)]
    ['a.0 ', 'a.7 ☃ ', 'a.15\n']
    """
    end = "\n" if number % 16 == 15 else " \u2603 " if number % 8 == 7 else " "
    stamp = f"@{time.monotonic_ns()}" if script.get("stamp") else ""
    return (f"{script['token']}.{number}{stamp}".ljust(script.get("fill", 0), "x")) + end


class Answer:
    """One request, and what was sent for it so far."""

    def __init__(self, number: int, script: Script) -> None:
        self.number = number
        self.script = script
        self.received_at = time.monotonic()
        self.words: list[str] = []
        self.finish_at: float | None = None
        self.done_at: float | None = None
        self.closed_by_peer_at: float | None = None
        self.closed_by_us_at: float | None = None
        self.is_over = False

    def report(self) -> dict[str, Any]:
        """Return the log's line about its end."""
        return {
            "ev": "end",
            "t": time.monotonic(),
            "token": self.script["token"],
            "request": self.number,
            "received_at": self.received_at,
            "text": "".join(self.words),
            "words": len(self.words),
            "finish_at": self.finish_at,
            "done_at": self.done_at,
            "closed_by_peer_at": self.closed_by_peer_at,
            "closed_by_us_at": self.closed_by_us_at,
        }


class Server:
    """Owns the log, and counts."""

    def __init__(self, log: TextIO) -> None:
        self._log = log
        self._numbers = itertools.count(1)
        self._attempts: Counter[str] = Counter()
        self.playing: set[Answer] = set()
        self.connections = 0

    def begin(self, script: Script) -> Answer:
        """Note a request, and return what will hold its answer."""
        token = script["token"]
        self._attempts[token] += 1
        if self._attempts[token] > script.get("attempts_fail", sys.maxsize):
            script = {**script, "fault": None}
        answer = Answer(next(self._numbers), script)
        self.playing.add(answer)
        self._write({"ev": "request", "t": answer.received_at, "token": token, "request": answer.number})
        return answer

    def end(self, answer: Answer) -> None:
        """Note once that nothing more will be sent for a request."""
        if not answer.is_over:
            answer.is_over = True
            self.playing.discard(answer)
            self._write(answer.report())

    def _write(self, line: dict[str, Any]) -> None:
        self._log.write(json.dumps(line) + "\n")

    async def flush(self) -> None:
        """Bring the log to its file now and then."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            self._log.flush()

    def close(self) -> None:
        """Note what was still going on, and close the log."""
        for answer in list(self.playing):
            self.end(answer)
        self._log.close()


class Connection(asyncio.Protocol):
    """One connection: a protocol rather than streams, so that a close is seen at once, also in silence."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._received = b""
        self._answer: Answer | None = None
        self._playing: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.connections += 1
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, blank, body = self._received.partition(b"\r\n\r\n")
        if not blank or self._playing:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(fields.get("content-length", 0))
        if len(body) < length:
            return
        self._received = body[length:]
        method, path, _version = first.split(" ")
        if method == "POST" and path.endswith("/chat/completions"):
            self._answer = self._server.begin(script_of(json.loads(body[:length])))
            self._playing = asyncio.create_task(self._play(self._answer))
        else:
            self._send_whole(200, {"playing": len(self._server.playing), "open": self._server.connections})

    def eof_received(self) -> bool:
        self._peer_left()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._server.connections -= 1
        self._peer_left()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _peer_left(self) -> None:
        if self._answer and not self._answer.is_over:
            if self._answer.closed_by_us_at is None:
                self._answer.closed_by_peer_at = time.monotonic()
            self._server.end(self._answer)
        if self._playing:
            self._playing.cancel()

    def _leave(self, answer: Answer, *, reset: bool) -> None:
        answer.closed_by_us_at = time.monotonic()
        if reset:
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        else:
            self._transport.close()

    # The answer.

    async def _play(self, answer: Answer) -> None:
        script = answer.script
        fault = script.get("fault")
        await _pause(script.get("first_ms", 0))
        if fault == "status":
            self._send_whole(503, {"error": {"message": "busy", "type": "server_error", "code": None}})
            answer.closed_by_us_at = time.monotonic()
        else:
            self._transport.write(HEAD)
            whole = await self._send_words(answer, script, fault)
            if whole:
                await self._send_end(answer, fault)
            else:
                self._leave(answer, reset=fault == "reset")
        self._server.end(answer)
        self._playing = self._answer = None

    async def _send_words(self, answer: Answer, script: Script, fault: str | None) -> bool:
        """Send the words, each when it is due; return whether all were sent."""
        start = b'data: {"id":"chatcmpl-%s","object":"chat.completion.chunk","created":1700000000,' % (
            script["token"].encode()
        )
        start += b'"model":"test-model","choices":[{"index":0,"delta":{"content":'
        pace_seconds = script.get("pace_ms", 0) / 1000
        stall_after, stall_ms = script.get("stall", (-1, 0))
        cut_after = script.get("after", 0) if fault in ("cut", "reset") else -1
        due = time.monotonic()
        for number in range(script.get("words", 20)):
            if number == cut_after:
                return False
            if number == stall_after:
                await _pause(stall_ms)
                due = time.monotonic()
            elif number:
                due += pace_seconds
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            if not self._writable.is_set():
                await self._writable.wait()
            said = word(script, number)
            answer.words.append(said)
            end = b'},"logprobs":null,"finish_reason":null}]}\n\n'
            self._send_chunk(start + json.dumps(said).encode() + end)
        return True

    async def _send_end(self, answer: Answer, fault: str | None) -> None:
        chunk: dict[str, Any] = {
            "object": "chat.completion.chunk",
            "id": f"chatcmpl-{answer.script['token']}",
        }
        chunk |= {"created": 1700000000, "model": "test-model"}
        await _pause(answer.script.get("last_ms", 0))
        if fault != "no_finish":
            choice = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
            answer.finish_at = time.monotonic()
            self._send_chunk(b"data: %s\n\n" % json.dumps({**chunk, "choices": [choice]}).encode())
        usage = {"prompt_tokens": 7, "completion_tokens": len(answer.words), "total_tokens": 7}
        ends = b"data: %s\n\n" % json.dumps({**chunk, "choices": [], "usage": usage}).encode()
        if fault != "no_done":
            answer.done_at = time.monotonic()
            ends += b"data: [DONE]\n\n"
        self._send_chunk(ends)
        self._transport.write(b"0\r\n\r\n")

    def _send_chunk(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _send_whole(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        head = f"HTTP/1.1 {status} Status\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        self._transport.write(head.encode() + b"\r\n\r\n" + body)


async def _pause(milliseconds: float) -> None:
    if milliseconds:
        await asyncio.sleep(milliseconds / 1000)


async def _main(port: int, log: TextIO) -> None:
    server = Server(log)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    serving = await loop.create_server(lambda: Connection(server), "127.0.0.1", port, backlog=2048)
    print(serving.sockets[0].getsockname()[1], flush=True)
    flushing = asyncio.create_task(server.flush())
    await stopped.wait()
    flushing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await flushing
    server.close()


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--port", type=int, default=0)
    options.add_argument("--log", type=Path, required=True)
    arguments = options.parse_args()
    with arguments.log.open("w", encoding="utf-8") as file:
        asyncio.run(_main(arguments.port, file))
