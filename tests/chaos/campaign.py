"""Run the real service under load, do it harm, and check what its clients were told.

``python -m tests.chaos.campaign NAME --out DIR`` starts an upstream, gunicorn with
its workers and hundreds of clients on 127.0.0.1, and ends with the checker's table
(``checker.py``); the exit code is 1 when a promise was broken. The logs stay in DIR.

``kills``: workers die by SIGKILL, one, some or all at once, now and then with their
master; ``pauses``: workers stand still (SIGSTOP), mostly for longer than their lease, or
somebody holds the log's lock for so long;
``restarts``: rolling SIGTERM and HUP; ``silence``: upstreams that say nothing for long;
with ``--store redis``, ``store-restarts``: its server dies and comes back, and
``failovers``: a replica that lacks the newest events takes its place;
``races``: cancels at the instant of the finish; ``duplicates``: the same create at
once on all workers; ``idle-readers``: clients that never read; ``leaks``: what is
left after the load; ``soak``: a steady load for ``--minutes``, during which nothing may
grow (``soak.py``); ``all``: each of them but that.
"""

import argparse
import asyncio
import contextlib
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.chaos import checker
from tests.chaos.clients import Habits, prompt_of
from tests.chaos.harm import fail_over, kill_some, pause_some, restart_some, restart_store
from tests.chaos.load import asked_once, audit, calm, load, user
from tests.chaos.rig import ENVIRONMENT, GRACE_SECONDS, Options, Rig
from tests.chaos.soak import soak
from tests.chaos.wire import exchange

SHAPES = {"silence": (4, 1), "races": (4, 1), "duplicates": (4, 1)}
"""Instances and workers of each. One master's workers take connections as they like, and an idle one
takes them all; where requests must meet on several workers, each is an instance with a port of its own."""
USUAL_SHAPE = (1, 4)


async def kills(rig: Rig) -> dict[str, object]:
    return await _harmed(rig, kill_some, rig.options.kills)


async def pauses(rig: Rig) -> dict[str, object]:
    return await _harmed(rig, pause_some, rig.options.pauses)


async def restarts(rig: Rig) -> dict[str, object]:
    return await _harmed(rig, restart_some, rig.options.restarts)


async def store_restarts(rig: Rig) -> dict[str, object]:
    return await _harmed(rig, restart_store, rig.options.store_restarts)


async def failovers(rig: Rig) -> dict[str, object]:
    return await _harmed(rig, fail_over, rig.options.failovers)


async def _harmed(rig: Rig, harm: Callable[[Rig, int], Awaitable[None]], count: int) -> dict[str, object]:
    """Do harm so many times under load, then look at every stream once more."""
    async with meanwhile(harm(rig, count)) as (harming,):
        await load(rig, user, rig.options.streams, rig.options.at_once, lambda: rig.harms >= count)
        await harming  # it may have begun streams of its own, whose readers are to reach their end
    await calm(rig)
    await audit(rig)
    return {}


async def silence(rig: Rig) -> dict[str, object]:
    """Follow upstreams that say nothing for a while, and ask for the state beside it."""
    await load(rig, _silent, rig.options.silences, 60)
    await audit(rig)
    return {}


async def _silent(rig: Rig, number: int) -> None:
    script = {"token": f"s{number}", "words": 6, "stall": [3, 5 * GRACE_SECONDS * 1000]}
    stream_id = await rig.clients.create(f"s{number}", {"prompt": prompt_of(script)})
    assert stream_id
    rig.streams.append(stream_id)
    rig.harms += 1
    await asyncio.gather(
        rig.clients.read(stream_id, Habits()), asked_once(rig.clients, stream_id, rig.chance)
    )


async def races(rig: Rig) -> dict[str, object]:
    await load(rig, _race, rig.options.races, 12)
    await audit(rig)
    return {}


async def _race(rig: Rig, number: int) -> None:
    """Cancel once or twice at the instant at which the stream finishes."""
    chance, clients = rig.chance, rig.clients
    words, pace_ms, last_ms = chance.randint(1, 4), 10, chance.choice((0, 3, 10))
    script = {"token": f"r{number}", "words": words, "pace_ms": pace_ms, "last_ms": last_ms}
    began = time.monotonic()
    stream_id = await clients.create(f"r{number}", {"prompt": prompt_of(script)})
    if stream_id is None:
        return
    rig.streams.append(stream_id)
    rig.harms += 1
    reading = asyncio.create_task(clients.read(stream_id, Habits()))
    expected = began + ((words - 1) * pace_ms + last_ms) / 1000 + 0.012
    await asyncio.sleep(max(0.0, expected + chance.uniform(-0.015, 0.015) - time.monotonic()))
    await asyncio.gather(*(clients.cancel(stream_id) for _ in range(chance.choice((1, 2)))))
    await reading


async def duplicates(rig: Rig) -> dict[str, object]:
    await load(rig, _duplicate, rig.options.duplicates, 4)
    await audit(rig)
    return {}


async def _duplicate(rig: Rig, number: int) -> None:
    """Send one create eight times at once, over all workers; then again with another body."""
    clients = rig.clients
    token = f"d{number}"
    body = {"prompt": prompt_of({"token": token, "words": 3, "pace_ms": 5})}
    ids = set(await asyncio.gather(*(clients.create(token, body, f"key-{token}") for _ in range(8))))
    rig.harms += 1
    if len(ids) != 1 or None in ids:
        rig.faults.append(f"{token}: ids {ids}")
        return
    (stream_id,) = ids
    assert stream_id
    rig.streams.append(stream_id)
    other = {"prompt": "something else"}
    answer = await exchange(clients.port(), "POST", "/streams", {"Idempotency-Key": f"key-{token}"}, other)
    if answer.status != 422:
        rig.faults.append(f"{token}: another body under the same key got {answer.status}")
    await clients.read(stream_id, Habits())


async def idle_readers(rig: Rig) -> dict[str, object]:
    """Measure others' latency before and while hundreds of clients never read."""
    await _latencies(rig, 5000)  # warms up
    before = await _latencies(rig, 0)
    big = {"words": 400, "pace_ms": 10, "fill": 12_000}  # more than fits into a socket's buffers
    over = asyncio.Event()
    deaf: list[asyncio.Task[str]] = []
    for number in range(10):
        token = f"deaf{number}"
        body = {"prompt": prompt_of({"token": token, **big}), "on_disconnect": "continue"}
        stream_id = await rig.clients.create(token, body)
        assert stream_id
        rig.streams.append(stream_id)
        rig.log.write("deaf", stream=stream_id)
        deaf += [
            asyncio.create_task(rig.clients.never_read(stream_id, over))
            for _ in range(rig.options.readers // 10)
        ]
    rig.harms = len(deaf)
    await calm(rig)
    await asyncio.sleep(4.0)
    during = await _latencies(rig, 1000)
    await asyncio.sleep(float(ENVIRONMENT["WRITE_TIMEOUT_SECONDS"]))
    over.set()
    ends = Counter(await asyncio.gather(*deaf))
    after = await _latencies(rig, 2000)
    for name, values in (("before", before), ("with", during), ("after", after)):
        print(f"latency {name:7} {_quantiles(values)}")
    print(f"of {len(deaf)} readers that never read: {dict(ends)}")
    if ends["open"]:
        rig.faults.append(f"{ends['open']} readers that never read were not dropped")
    await audit(rig)
    return {"latency_ms": {"before": before, "with": during, "after": after}, "never_read": ends}


async def _latencies(rig: Rig, first: int) -> list[float]:
    """Return the milliseconds from the upstream's write to a reader's read, word by word."""
    tokens = [f"l{first + number}" for number in range(20)]
    waited: list[float] = []
    seen = rig.clients.on_text
    rig.clients.on_text = lambda text, at: waited.extend(_stamps(text, at))

    async def one(token: str) -> None:
        body = {"prompt": prompt_of({"token": token, "words": 200, "pace_ms": 50, "stamp": True})}
        stream_id = await rig.clients.create(token, body)
        assert stream_id
        rig.streams.append(stream_id)
        await rig.clients.read(stream_id, Habits())

    await asyncio.gather(*(one(token) for token in tokens))
    rig.clients.on_text = seen
    return waited


def _stamps(text: str, at: float) -> Iterator[float]:
    for word in text.split():
        _, stamp, sent_at = word.partition("@")
        if stamp:
            yield at * 1000 - int(sent_at) / 1e6


def _quantiles(values: list[float]) -> str:
    cuts = statistics.quantiles(values, n=1000)
    return f"p50 {cuts[499]:.1f} ms, p95 {cuts[949]:.1f} ms, p99 {cuts[989]:.1f} ms, {len(values)} words"


async def leaks(rig: Rig) -> dict[str, object]:
    """Compare what the service holds when idle, before and after the load; it is warmed up first."""
    warm_up = max(200, rig.options.streams // 4)
    await load(rig, user, warm_up, rig.options.at_once)
    before = await _resources(rig)
    await load(rig, user, rig.options.streams, rig.options.at_once, first=warm_up)
    after = await _resources(rig)
    await audit(rig)
    return {"resources": {"before": before, "after": after}}


async def _resources(rig: Rig) -> dict[str, float]:
    """Wait until nothing runs, and say what the service holds."""
    await calm(rig)
    await asyncio.sleep(2 * GRACE_SECONDS + 5)
    rss, descriptors, threads = 0.0, 0, 0
    for instance in rig.instances:
        for pid in [instance.process.pid, *instance.worker_pids()]:
            status = Path(f"/proc/{pid}/status").read_text()
            fields = dict(line.split(":", 1) for line in status.splitlines())
            rss += int(fields["VmRSS"].split()[0]) / 1024
            threads += int(fields["Threads"])
            descriptors += len(list(Path(f"/proc/{pid}/fd").iterdir()))
    wal = rig.out / "log.db-wal"
    return {
        "RSS MiB": round(rss, 1),
        "descriptors": descriptors,
        "threads": threads,
        "WAL KiB": round(wal.stat().st_size / 1024) if wal.exists() else 0,
        "streams at the upstream": (await rig.upstream_stats())["playing"],
    }


CAMPAIGNS: dict[str, Callable[[Rig], Awaitable[dict[str, object]]]] = {
    "kills": kills,
    "pauses": pauses,
    "restarts": restarts,
    "store-restarts": store_restarts,
    "failovers": failovers,
    "silence": silence,
    "races": races,
    "duplicates": duplicates,
    "idle-readers": idle_readers,
    "leaks": leaks,
    "soak": soak,
}
NOT_IN_ALL = ("soak",)
OF_REDIS = ("store-restarts", "failovers")


@contextlib.asynccontextmanager
async def meanwhile(*jobs: Awaitable[None]) -> Any:
    """Run jobs, whose tasks it gives, beside the body; raise what they raise, and cancel what still runs."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        yield tasks
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _progress(rig: Rig) -> None:
    every = 1.0 if sys.stderr.isatty() else 15.0
    while True:
        await asyncio.sleep(every)
        line = (
            f"{rig.options.name}: {time.monotonic() - rig.started_at:.0f} s, {rig.finished_streams} streams,"
            f" {rig.harms} harms, {rig.clients.delivered} messages"
        )
        print(line, end="\r" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)
        for instance in rig.instances:
            if (code := instance.process.poll()) is not None and code != -signal.SIGKILL:
                rig.faults.append(f"gunicorn ended by itself with {code}")
                instance.start()


async def run(options: Options) -> list[checker.Outcome]:
    """Run one campaign and return the outcome of every promise."""
    instances, workers = SHAPES.get(options.name, USUAL_SHAPE)
    if not options.instances and not options.workers:
        options = replace(options, instances=instances, workers=workers)
    options = replace(options, instances=options.instances or 1, workers=options.workers or 1)
    rig = Rig(options)
    try:
        for instance in rig.instances:
            await instance.wait_until_ready()
        async with meanwhile(_progress(rig)):
            meta = await CAMPAIGNS[options.name](rig)
        outcomes = rig.finish(**meta)
    finally:
        rig.close()
    seconds = time.monotonic() - rig.started_at
    print(
        f"\n{options.name}: {rig.harms} harms, {len(rig.streams)} streams, {rig.clients.delivered} messages,"
        f" {options.instances} x {options.workers} workers, {options.store}, seed {options.seed},"
        f" {seconds:.0f} s"
    )
    print(checker.table(outcomes), flush=True)
    return outcomes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.campaign", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("name", choices=[*CAMPAIGNS, "all"])
    parser.add_argument("--out", type=Path, default=Path("chaos-out"))
    for name in (
        "kills",
        "pauses",
        "restarts",
        "store-restarts",
        "failovers",
        "silences",
        "races",
        "duplicates",
        "readers",
        "streams",
        "at-once",
        "stall-ms",
    ):
        field = name.replace("-", "_")
        parser.add_argument(f"--{name}", type=int, default=getattr(Options, field))
    for name in ("workers", "instances", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Options, name))
    parser.add_argument("--every-seconds", type=float, default=Options.every_seconds)
    parser.add_argument("--graphs", type=float, default=Options.graphs)
    parser.add_argument("--seconds", type=float, default=Options.seconds)
    parser.add_argument("--minutes", type=float, default=Options.minutes)
    parser.add_argument("--store", choices=["sqlite", "redis"], default=Options.store)
    options = Options(**vars(parser.parse_args(arguments)))
    names = [options.name]
    if options.name == "all":
        names = [
            name
            for name in CAMPAIGNS
            if name not in NOT_IN_ALL and (options.store == "redis" or name not in OF_REDIS)
        ]
    elif options.name in OF_REDIS and options.store != "redis":
        parser.error(f"{options.name} needs --store redis")
    broken = False
    for name in names:
        outcomes = asyncio.run(run(replace(options, name=name, out=options.out / name)))
        broken = broken or any(outcome.violations for outcome in outcomes)
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
