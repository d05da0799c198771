"""A steady load for a long time: what the service holds must not grow, and no promise may be broken.

``python -m tests.chaos.campaign soak --minutes 30 --streams 100`` keeps so many
streams of 20 chunks a second going. A few of their readers are the campaign's
usual ones, which write down all they are told for the checker; the others check
themselves: every event once and in order, and the text's SHA-256 at the end.
They cut and resume, cancel, poll, read slowly and speak WebSocket.
"""

import asyncio
import contextlib
import hashlib
import json
import random
import socket
import time
from collections import Counter
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from tests.chaos.clients import Habits, prompt_of
from tests.chaos.growth import Growth
from tests.chaos.load import FORMATS, QUERIES, audit, calm
from tests.chaos.rig import Rig

PACE_MS = 50
WITNESSED = 8
"""Readers that the checker judges; all of them would fill its memory."""
WAYS = ("follow",) * 10 + ("resume",) * 4 + ("cancel", "cancel", "poll", "poll", "slow", "socket", "socket")
PATIENCE_SECONDS = 90.0


async def soak(rig: Rig) -> dict[str, object]:
    """Keep ``streams`` going for ``minutes``; note as faults what grew and what readers missed."""
    ends_at = time.monotonic() + rig.options.minutes * 60
    growth = Growth(rig)
    told: Counter[str] = Counter()
    sampling = asyncio.create_task(growth.sample())
    try:
        slots = (_slot(rig, slot, ends_at, told) for slot in range(rig.options.streams))
        await asyncio.gather(*slots)
    finally:
        sampling.cancel()
        await asyncio.gather(sampling, return_exceptions=True)
    await calm(rig)
    rig.faults += growth.faults()
    growth.write(rig.out)
    print(growth.table())
    print(f"ways: {dict(told)}", flush=True)
    # What is older may be erased already.
    rig.streams = rig.streams[-2 * WITNESSED :]
    await audit(rig)
    return {"soak": {"ways": told, "samples": len(growth.samples)}}


async def _slot(rig: Rig, slot: int, ends_at: float, told: Counter[str]) -> None:
    """One stream after the other, until the time is over."""
    await asyncio.sleep(rig.chance.random() * 10)
    number = 0
    while time.monotonic() < ends_at:
        token = f"k{slot}-{number}"
        way = rig.chance.choice(WAYS)
        try:
            await _one(rig, token, way, witnessed=slot < WITNESSED)
        except Missed as missed:
            rig.faults.append(f"{token}, {way}: {missed}")
        told[way] += 1
        rig.finished_streams += 1
        number += 1


class Missed(Exception):
    """A reader did not get what it was promised."""


async def _one(rig: Rig, token: str, way: str, witnessed: bool) -> None:
    clients, chance = rig.clients, rig.chance
    script = {"token": token, "words": chance.randint(100, 300), "pace_ms": PACE_MS}
    body = {"prompt": prompt_of(script), "on_disconnect": "continue"}
    stream_id = await clients.create(token, body, f"key-{token}")
    if stream_id is None:
        raise Missed("it was not created")
    if witnessed:
        rig.streams.append(stream_id)
        habits = Habits(
            formats=chance.choice(FORMATS),
            query=chance.choice(QUERIES),
            cuts=3 if way == "resume" else 0,
            polls=way == "poll",
        )
        tasks: list[Any] = [clients.read(stream_id, habits)]
        if way == "cancel":
            tasks.append(_cancel(rig, stream_id))
        await asyncio.gather(*tasks)
        return
    reading = _Reading()
    async with asyncio.timeout(PATIENCE_SECONDS):
        match way:
            case "cancel":
                await asyncio.gather(_follow(rig, stream_id, reading), _cancel(rig, stream_id))
            case "poll":
                await _poll(rig, stream_id)
            case "socket":
                await _listen(rig, stream_id, reading)
            case _:
                await _follow(rig, stream_id, reading, cuts=3 * (way == "resume"), slow=way == "slow")


async def _cancel(rig: Rig, stream_id: str) -> None:
    await asyncio.sleep(rig.chance.uniform(1, 5))
    await rig.clients.cancel(stream_id)


async def _poll(rig: Rig, stream_id: str) -> None:
    while (await rig.clients.snapshot(stream_id, "", 5.0)).body["state"] == "running":
        await asyncio.sleep(0.5)


class _Reading:
    """What one reader was told, over all its connections."""

    def __init__(self) -> None:
        self.cursor = ""
        self.ended = False
        self._seq = 0
        self._text = hashlib.sha256()

    def take(self, cursor: str, event: dict[str, Any]) -> None:
        """Check one event against those before. Raises `Missed`."""
        seq = int(cursor.partition(".")[2])
        if seq != self._seq + event.get("n", 1):
            raise Missed(f"{cursor} after event {self._seq}")
        self._seq, self.cursor = seq, cursor
        if event["type"] == "token":
            self._text.update(event["content"].encode())
        if event.get("done"):
            self.ended = True
            if event["type"] == "error":
                raise Missed(f"it ended with {event['error']}")
            if (event["last_seq"], event["text_sha256"]) != (seq, self._text.hexdigest()):
                raise Missed("its text is not the one that was written")


async def _follow(rig: Rig, stream_id: str, reading: _Reading, cuts: int = 0, slow: bool = False) -> None:
    """Follow to the end, over as many connections as it takes."""
    while not reading.ended:
        cut_at = time.monotonic() + rig.chance.uniform(0.2, 3) if cuts else float("inf")
        cuts = max(0, cuts - 1)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await _connection(rig.clients.port(), stream_id, reading, cut_at, slow, rig.chance)


async def _connection(
    port: int, stream_id: str, reading: _Reading, cut_at: float, slow: bool, chance: random.Random
) -> None:
    sock = socket.socket()
    if slow:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=2**16)
    try:
        last = f"Last-Event-ID: {reading.cursor}\r\n" if reading.cursor else ""
        path = f"/streams/{stream_id}?format=native"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{last}\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise Missed(f"answered {head[:40]!r}")
        cursor = ""
        while time.monotonic() < cut_at and not reading.ended:
            line = await reader.readline()
            if not line:
                return
            if line.startswith(b"id: "):
                cursor = line[4:].decode().strip()
            elif line.startswith(b"data: "):
                reading.take(cursor, json.loads(line[6:]))
                if slow:
                    await asyncio.sleep(chance.uniform(0, 0.2))
    finally:
        writer.transport.abort()


async def _listen(rig: Rig, stream_id: str, reading: _Reading) -> None:
    """Follow on a WebSocket; at times leave, and come back with the cursor."""
    while not reading.ended:
        leaves_at = time.monotonic() + rig.chance.uniform(1, 20)
        address = f"ws://127.0.0.1:{rig.clients.port()}/ws"
        with contextlib.suppress(WebSocketException, ConnectionError):
            async with connect(address, proxy=None) as ws:
                await ws.send(json.dumps({"type": "follow", "stream_id": stream_id, "after": reading.cursor}))
                async for text in ws:
                    frame = json.loads(text)
                    if frame["type"] == "error" and "cursor" not in frame:
                        raise Missed(f"refused: {frame['error']}")
                    if "cursor" in frame and frame["type"] not in ("following", "dropped"):
                        reading.take(frame["cursor"], frame)
                    if reading.ended or time.monotonic() > leaves_at:
                        break
