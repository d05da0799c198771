"""What users do: create, read in every way, cancel, abandon; many at once, as chance will have it."""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

from tests.chaos.clients import Clients, Habits, address_of_ask, prompt_of
from tests.chaos.rig import Rig
from tests.chaos.wire import Lost

FORMATS = (
    ("native",),
    ("native",),
    ("simple",),
    ("text",),
    ("native", "simple", "text"),
    ("ndjson",),
)
AUDIT = Habits(query="&metrics=1", asks=False, patience_seconds=40.0)
QUERIES = ("", "", "", "&buffer_tokens=8", "&buffer_ms=200", "&metrics=1")


async def user(rig: Rig, number: int) -> None:
    """Create a stream, and read, poll, cancel or abandon it, as chance will have it."""
    chance, clients = rig.chance, rig.clients
    token = f"t{number}"
    script: dict[str, Any] = {
        "token": token,
        "words": chance.randint(3, 70),
        "pace_ms": chance.choice((0, 5, 20, 40, 60)),
        "first_ms": chance.choice((0, 0, 50, 400)),
    }
    abandons = chance.random() < 0.05
    if abandons:
        script |= {"words": 600, "pace_ms": 100}
    elif chance.random() < 0.15:
        longest = rig.options.stall_ms
        script["stall"] = [chance.randint(0, 20), chance.choice((500, 2000, longest // 4, longest))]
    if chance.random() < 0.08:
        script["fault"] = chance.choice(("cut", "reset", "status", "no_done", "no_finish"))
        script |= {"after": chance.randint(0, 20), "attempts_fail": chance.randint(1, 3)}
    address = ""
    if chance.random() < 0.1:
        address = address_of_ask(script, f"key-{token}")
        stream_id = await clients.ask(token, address)
    else:
        body: dict[str, Any] = {"prompt": prompt_of(script)}
        if not abandons:
            body["on_disconnect"] = chance.choice(("grace", "continue", "continue"))
        if rig.options.graphs and chance.random() < rig.options.graphs:
            body["source"] = "graph"
        stream_id = await _created(clients, token, body, chance)
    if stream_id is None:
        return
    rig.streams.append(stream_id)
    tasks = []
    for _ in range(chance.choice((1, 1, 2, 3))):
        habits = Habits(
            formats=chance.choice(FORMATS),
            query=chance.choice(QUERIES),
            cuts=chance.choice((0, 0, 1, 3)),
            leaves_after_seconds=chance.random() if abandons else None,
            polls=chance.random() < 0.2,
            address=address,
        )
        tasks.append(clients.read(stream_id, habits))
    if chance.random() < 0.12:
        tasks.append(_cancelled(clients, stream_id, chance))
    elif chance.random() < 0.2:
        tasks.append(asked_once(clients, stream_id, chance))
    await asyncio.gather(*tasks)


async def _created(clients: Clients, token: str, body: dict[str, Any], chance: random.Random) -> str | None:
    key = f"key-{token}" if chance.random() < 0.75 else None
    twins = 3 if key and chance.random() < 0.15 else 1
    ids = await asyncio.gather(*(clients.create(token, body, key) for _ in range(twins)))
    return next((stream_id for stream_id in ids if stream_id), None)


async def asked_once(clients: Clients, stream_id: str, chance: random.Random) -> None:
    """Ask for the state beside the readers, as a page does when a stream is silent."""
    await asyncio.sleep(chance.random() * 2)
    with contextlib.suppress(Lost):
        await clients.snapshot(stream_id)


async def _cancelled(clients: Clients, stream_id: str, chance: random.Random) -> None:
    await asyncio.sleep(chance.random() * 1.5)
    for _ in range(3):
        states = await asyncio.gather(*(clients.cancel(stream_id) for _ in range(chance.choice((1, 2)))))
        if any(states):
            return
        await asyncio.sleep(0.5)


async def load(
    rig: Rig,
    one: Callable[[Rig, int], Awaitable[None]],
    count: int,
    at_once: int,
    enough: Callable[[], bool] = lambda: True,
    first: int = 0,
) -> None:
    """Run ``count`` users, and more until there was ``enough``, ``at_once`` at the same time."""
    deadline = rig.started_at + rig.options.seconds
    running: set[asyncio.Task[None]] = set()
    number = first
    try:
        while (number < first + count or not enough()) and time.monotonic() < deadline:
            while len(running) < at_once and (number < first + count or not enough()):
                running.add(asyncio.create_task(one(rig, number)))
                number += 1
            running = await _reaped(rig, running)
        while running:
            running = await _reaped(rig, running)
    finally:
        for task in running:
            task.cancel()


async def _reaped(rig: Rig, running: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
    done, left = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    rig.finished_streams += len(done)
    for task in done:
        task.result()
    return left


async def audit(rig: Rig) -> None:
    """Read every stream from its start once more, when all is over, and ask for its state."""

    async def look(rig: Rig, number: int) -> None:
        stream_id = rig.streams[number]
        await rig.clients.read(stream_id, AUDIT, "audit")
        with contextlib.suppress(Lost):
            await rig.clients.snapshot(stream_id)

    finished = rig.finished_streams
    await load(rig, look, len(rig.streams), 16)
    rig.finished_streams = finished


async def calm(rig: Rig, seconds: float = 90.0) -> None:
    """Wait until all workers are up and the upstream has nothing more to play."""
    deadline = time.monotonic() + seconds
    for instance in rig.instances:
        await instance.wait_until_ready()
    while (await rig.upstream_stats())["playing"] and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
