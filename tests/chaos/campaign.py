"""Run the real service under load, do it harm, and check what its clients were told.

``python -m tests.chaos.campaign NAME --out DIR`` starts an upstream, gunicorn with
its workers and hundreds of clients on 127.0.0.1, and ends with the checker's table
(``checker.py``); the exit code is 1 when a promise was broken. The logs stay in DIR.

``kills``: workers die by SIGKILL, one, some or all at once, now and then with their
master; ``pauses``: workers stand still (SIGSTOP), mostly for longer than their lease, or
somebody holds the log's lock for so long;
``restarts``: rolling SIGTERM and HUP; ``silence``: upstreams that say nothing for long;
``races``: cancels at the instant of the finish; ``duplicates``: the same create at
once on all workers; ``idle-readers``: clients that never read; ``leaks``: what is
left after the load; ``all``: each of them.
"""

import argparse
import asyncio
import contextlib
import ctypes
import json
import os
import random
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.chaos import checker
from tests.chaos.clients import Clients, Habits, Log, Lost, exchange, prompt_of
from tests.live.service import REPOSITORY, free_port

START_SECONDS = 60.0
GRACE_SECONDS = 4.0
HEARTBEAT_SECONDS = 2.0
LEASE_SECONDS = 10.0
ENVIRONMENT = {
    "OPENAI_API_KEY": "sk-chaos",
    "MODEL": "test-model",
    "DISCONNECT_GRACE_SECONDS": str(GRACE_SECONDS),
    "HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS),
    "LEASE_SECONDS": str(LEASE_SECONDS),
    "DRAIN_SECONDS": "3",
    "WRITE_TIMEOUT_SECONDS": "25",
    "RETENTION_SECONDS": "86400",
}
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


@dataclass(frozen=True)
class Options:
    name: str
    out: Path
    kills: int = 50
    pauses: int = 8
    restarts: int = 8
    silences: int = 60
    races: int = 500
    duplicates: int = 200
    readers: int = 500
    streams: int = 500
    at_once: int = 40
    """Streams that run at the same time."""
    stall_ms: int = 25_000
    """The longest silence of an upstream."""
    every_seconds: float = 1.5
    """From one harm to the next, on average."""
    seconds: float = 3600.0
    """The most one campaign may take."""
    workers: int = 0
    """In each instance; 0 for what suits the campaign, as with ``instances``."""
    instances: int = 0
    store: str = "sqlite"
    seed: int = 1


SHAPES = {"silence": (4, 1), "races": (4, 1), "duplicates": (4, 1)}
"""Instances and workers of each. One master's workers take connections as they like, and an idle one
takes them all; where requests must meet on several workers, each is an instance with a port of its own."""
USUAL_SHAPE = (1, 4)


# The processes.


def _end_with_parent() -> None:
    """Have the kernel end this process when the campaign is killed."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _start(program: Sequence[str], log: Path, environment: dict[str, str], **streams: Any) -> Any:
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, *program],
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=streams.get("stdout", output),
            stderr=output,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )


def _environment() -> dict[str, str]:
    # Without compiled files a worker's start would measure Python's compiler.
    foreign = ("OPENAI_", "EVENTLOG_", "LANGCHAIN_", "LANGSMITH_", "PYTHONDONTWRITEBYTECODE")
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(foreign) and not name.lower().endswith("_proxy")
    }


class Instance:
    """One gunicorn, master and workers, in a session of its own; it can be started again on its port."""

    def __init__(self, directory: Path, environment: dict[str, str], workers: int) -> None:
        self.port = free_port()
        self._log = directory / f"service-{self.port}.log"
        self._environment = environment
        self._workers = workers
        self.start()

    def start(self) -> None:
        bind = ["-b", f"127.0.0.1:{self.port}", "-w", str(self._workers)]
        program = ["-m", "gunicorn", "-c", "gunicorn.conf.py", *bind, "wsgi:app"]
        self.process = _start(program, self._log, self._environment)

    def worker_pids(self) -> list[int]:
        """Return the process ids of the workers that live now."""
        master = self.process.pid
        try:
            return [int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()]
        except OSError:
            return []

    async def wait_until_ready(self) -> None:
        """Return once a worker takes work. Raises ``AssertionError`` after a while."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"gunicorn ended with {self.process.poll()}: {self._log}"
            with contextlib.suppress(Lost):
                if (await exchange(self.port, "GET", "/readyz", seconds=2.0)).status == 200:
                    return
            await asyncio.sleep(0.05)
        raise AssertionError(f"not ready after {START_SECONDS} s: {self._log}")

    def kill(self) -> None:
        """Kill the master and its workers at once, whatever state they are in."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=10)

    def stop(self, seconds: float = 30.0) -> None:
        """Stop with SIGTERM, as a platform does. Blocks."""
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=seconds)
        self.kill()


class Rig:
    """Everything that runs in one campaign."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.chance = random.Random(options.seed)
        self.out = options.out
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir(parents=True)
        self.started_at = time.monotonic()
        self.chaos = Log(self.out / "chaos.jsonl")
        self.harms = 0
        self.stopped: set[int] = set()
        """Workers that stand still and must not be killed, so that they wake up."""
        self.streams: list[str] = []
        self.finished_streams = 0
        self.instances: list[Instance] = []
        self.faults: list[str] = []
        """What went wrong with the campaign itself, such as a master that ended by itself."""
        upstream = [str(Path(__file__).with_name("upstream.py")), "--log", str(self.out / "upstream.jsonl")]
        self._upstream = _start(upstream, self.out / "upstream.log", _environment(), stdout=subprocess.PIPE)
        assert self._upstream.stdout
        self.upstream_port = int(self._upstream.stdout.readline())
        self._store: Any = None
        environment = _environment() | ENVIRONMENT | self._store_environment()
        environment["OPENAI_BASE_URL"] = f"http://127.0.0.1:{self.upstream_port}/v1"
        try:
            self.instances = [
                Instance(self.out, environment, options.workers) for _ in range(options.instances)
            ]
        except BaseException:
            self.close()
            raise
        self.log = Log(self.out / "clients.jsonl")
        self.clients = Clients([instance.port for instance in self.instances], self.log, self.chance)

    def _store_environment(self) -> dict[str, str]:
        if self.options.store == "sqlite":
            return {"EVENTLOG_URL": f"sqlite:///{(self.out / 'log.db').absolute()}"}
        port = free_port()
        program = ["redis-server", "--port", str(port), "--dir", str(self.out), "--appendonly", "yes"]
        program += ["--bind", "127.0.0.1", "--maxmemory-policy", "noeviction"]
        self._store = subprocess.Popen(
            program, stdout=subprocess.DEVNULL, start_new_session=True, preexec_fn=_end_with_parent
        )
        return {"EVENTLOG_URL": f"redis://127.0.0.1:{port}/0"}

    def note(self, what: str, pid: int) -> None:
        """Write down what is done to the service."""
        self.chaos.write("chaos", what=what, pid=pid)

    def worker(self) -> tuple[Instance, int] | None:
        """Return a worker by chance."""
        instance = self.chance.choice(self.instances)
        pids = [pid for pid in instance.worker_pids() if pid not in self.stopped]
        return (instance, self.chance.choice(pids)) if pids else None

    async def upstream_stats(self) -> dict[str, int]:
        """Return how many answers are ``playing``, over how many ``open`` connections."""
        stats: dict[str, int] = (await exchange(self.upstream_port, "GET", "/stats")).body
        return stats

    def finish(self, **meta: object) -> list[checker.Outcome]:
        """Stop everything in order, and check."""
        for instance in self.instances:
            instance.stop()
        self._upstream.terminate()
        self._upstream.wait(timeout=20)
        self.log.close()
        self.chaos.close()
        told = {"grace_seconds": GRACE_SECONDS, "heartbeat_seconds": HEARTBEAT_SECONDS, **meta}
        (self.out / "campaign.json").write_text(json.dumps(told))
        outcomes = checker.check(checker.Evidence.read(self.out))
        if self.faults:
            outcomes.append(checker.Outcome("campaign", 0, self.faults))
        return outcomes

    def close(self) -> None:
        """Kill what is left."""
        for instance in self.instances:
            instance.kill()
        for process in (self._upstream, self._store):
            if process is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait(timeout=10)
        self._upstream.stdout.close()


# What users do.


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
    body: dict[str, Any] = {"prompt": prompt_of(script)}
    if not abandons:
        body["on_disconnect"] = chance.choice(("grace", "continue", "continue"))
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
        )
        tasks.append(clients.read(stream_id, habits))
    if chance.random() < 0.12:
        tasks.append(_cancelled(clients, stream_id, chance))
    elif chance.random() < 0.2:
        tasks.append(_asked_once(clients, stream_id, chance))
    await asyncio.gather(*tasks)


async def _created(clients: Clients, token: str, body: dict[str, Any], chance: random.Random) -> str | None:
    key = f"key-{token}" if chance.random() < 0.75 else None
    twins = 3 if key and chance.random() < 0.15 else 1
    ids = await asyncio.gather(*(clients.create(token, body, key) for _ in range(twins)))
    return next((stream_id for stream_id in ids if stream_id), None)


async def _asked_once(clients: Clients, stream_id: str, chance: random.Random) -> None:
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


# Harm.


async def kill_some(rig: Rig, count: int) -> None:
    """Kill ``count`` workers with SIGKILL, in several ways."""
    while rig.harms < count and not _out_of_time(rig):
        await asyncio.sleep(rig.options.every_seconds * (0.3 + 1.4 * rig.chance.random()))
        way = rig.chance.random()
        instance = rig.chance.choice(rig.instances)
        if way < 0.03:
            await kill_instance(rig, instance)
        elif way < 0.10:
            await kill_all_workers(rig, instance)
        elif way < 0.30:
            await kill_during_creates(rig)
        elif worker := rig.worker():
            kill(rig, worker[1])


def kill(rig: Rig, pid: int) -> None:
    if pid in rig.stopped:
        return
    rig.note("kill", pid)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        rig.harms += 1


async def kill_instance(rig: Rig, instance: Instance) -> None:
    """Kill a master and its workers, and start them again on the same port and log."""
    rig.note("down", instance.port)
    rig.harms += len(instance.worker_pids())
    instance.kill()
    instance.start()
    await instance.wait_until_ready()
    rig.note("up", instance.port)


async def kill_all_workers(rig: Rig, instance: Instance) -> None:
    """Kill the workers of a master, which starts others; until then nobody is there to answer."""
    rig.note("down", instance.port)
    for pid in instance.worker_pids():
        kill(rig, pid)
    await instance.wait_until_ready()
    rig.note("up", instance.port)


async def kill_during_creates(rig: Rig) -> None:
    """Kill a worker while creates are between its commit and its first word."""
    first = 1_000_000 + rig.harms * 100
    creating = [asyncio.create_task(user(rig, first + number)) for number in range(6)]
    await asyncio.sleep(rig.chance.random() * 0.03)
    if worker := rig.worker():
        kill(rig, worker[1])
    await asyncio.gather(*creating)


async def pause_some(rig: Rig, count: int) -> None:
    """Stop workers, mostly for longer than their lease: they must find themselves fenced."""
    while rig.harms < count and not _out_of_time(rig):
        await asyncio.sleep(rig.options.every_seconds * (0.3 + 1.4 * rig.chance.random()))
        long = rig.chance.random() < 0.8
        seconds = LEASE_SECONDS + 1 + 3 * rig.chance.random() if long else 4 * rig.chance.random()
        if rig.options.store == "sqlite" and rig.chance.random() < 0.2:
            await hold_log(rig, seconds)
        elif worker := rig.worker():
            await pause(rig, worker[1], seconds)
        rig.harms += 1


async def hold_log(rig: Rig, seconds: float) -> None:
    """Keep everybody from writing, as a worker does that is stopped in the middle of a commit."""
    with contextlib.closing(sqlite3.connect(rig.out / "log.db", isolation_level=None, timeout=5.0)) as db:
        db.execute("BEGIN IMMEDIATE")
        rig.note("stop", 0)
        try:
            await asyncio.sleep(seconds)
        finally:
            db.execute("ROLLBACK")
            rig.note("continue", 0)


async def pause(rig: Rig, pid: int, seconds: float) -> None:
    rig.note("stop", pid)
    rig.stopped.add(pid)
    try:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
        rig.stopped.discard(pid)
        rig.note("continue", pid)


async def restart_some(rig: Rig, count: int) -> None:
    """Restart ``count`` workers in order: one by one by SIGTERM, or all of a master by HUP."""
    while rig.harms < count and not _out_of_time(rig):
        instance = rig.chance.choice(rig.instances)
        before = instance.worker_pids()
        if rig.chance.random() < 0.2:
            rig.note("hup", instance.process.pid)
            instance.process.send_signal(signal.SIGHUP)
            await _until_gone(rig, before)
            rig.harms += len(before)
        else:
            for pid in before:
                rig.note("term", pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
                await _until_gone(rig, [pid])
                rig.harms += 1
                await asyncio.sleep(rig.chance.random())
        await asyncio.sleep(rig.options.every_seconds * rig.chance.random())


async def _until_gone(rig: Rig, pids: Sequence[int], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > deadline:
            rig.faults.append(f"after SIGTERM, workers {list(pids)} lived for {seconds} s")
            return
        await asyncio.sleep(0.05)


def _out_of_time(rig: Rig) -> bool:
    return time.monotonic() > rig.started_at + rig.options.seconds


@contextlib.asynccontextmanager
async def meanwhile(*jobs: Awaitable[None]) -> Any:
    """Run jobs beside the body; what they raise is raised, and what still runs is cancelled."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        yield
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# The campaigns.


async def kills(rig: Rig) -> dict[str, object]:
    return await _harmed(rig, kill_some, rig.options.kills)


async def pauses(rig: Rig) -> dict[str, object]:
    return await _harmed(rig, pause_some, rig.options.pauses)


async def restarts(rig: Rig) -> dict[str, object]:
    return await _harmed(rig, restart_some, rig.options.restarts)


async def _harmed(rig: Rig, harm: Callable[[Rig, int], Awaitable[None]], count: int) -> dict[str, object]:
    """Do harm so many times under load, then look at every stream once more."""
    async with meanwhile(harm(rig, count)):
        await load(rig, user, rig.options.streams, rig.options.at_once, lambda: rig.harms >= count)
    await _calm(rig)
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
        rig.clients.read(stream_id, Habits()), _asked_once(rig.clients, stream_id, rig.chance)
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
    await _calm(rig)
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
    await _calm(rig)
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


async def _calm(rig: Rig, seconds: float = 90.0) -> None:
    """Wait until all workers are up and the upstream has nothing more to play."""
    deadline = time.monotonic() + seconds
    for instance in rig.instances:
        await instance.wait_until_ready()
    while (await rig.upstream_stats())["playing"] and time.monotonic() < deadline:
        await asyncio.sleep(0.2)


CAMPAIGNS: dict[str, Callable[[Rig], Awaitable[dict[str, object]]]] = {
    "kills": kills,
    "pauses": pauses,
    "restarts": restarts,
    "silence": silence,
    "races": races,
    "duplicates": duplicates,
    "idle-readers": idle_readers,
    "leaks": leaks,
}


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
    parser.add_argument("--seconds", type=float, default=Options.seconds)
    parser.add_argument("--store", choices=["sqlite", "redis"], default=Options.store)
    options = Options(**vars(parser.parse_args(arguments)))
    names = list(CAMPAIGNS) if options.name == "all" else [options.name]
    broken = False
    for name in names:
        outcomes = asyncio.run(run(replace(options, name=name, out=options.out / name)))
        broken = broken or any(outcome.violations for outcome in outcomes)
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
