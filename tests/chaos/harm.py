"""What is done to the service and its store: kills, stops, restarts."""

import asyncio
import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.load import user
from tests.chaos.rig import LEASE_SECONDS, Instance, Rig


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


async def restart_store(rig: Rig, count: int) -> None:
    """Kill the store's server and start it again, at once or after some seconds."""
    assert rig.store is not None
    while rig.harms < count and not _out_of_time(rig):
        await asyncio.sleep(rig.options.every_seconds * (1 + 4 * rig.chance.random()))
        rig.note("down", rig.store.port)
        rig.store.stop()
        await asyncio.sleep(rig.chance.choice((0.0, 0.5, 3.0, 8.0, 15.0)))
        await asyncio.to_thread(rig.store.start)
        rig.note("up", rig.store.port)
        rig.harms += 1


async def fail_over(rig: Rig, count: int) -> None:
    """Kill the store's primary, and let its replica take over the address.

    Up to 0.3 s before that the replica is cut off, as by a network that splits: what the
    primary answered in that time is lost, and the workers must write it again.
    """
    assert rig.store is not None
    assert rig.replica is not None
    while rig.harms < count and not _out_of_time(rig):
        await asyncio.sleep(rig.options.every_seconds * (1 + 4 * rig.chance.random()))
        rig.replica.ask("REPLICAOF", "NO", "ONE")
        await asyncio.sleep(rig.chance.choice((0.0, 0.05, 0.3)))
        rig.note("down", rig.store.port)
        rig.store.stop()
        await asyncio.sleep(rig.chance.choice((0.0, 0.5, 3.0)))
        old, new = rig.store, rig.replica
        old.port, new_port = new.port, old.port
        new.move(new_port)
        rig.store, rig.replica = new, old
        rig.note("up", new_port)
        rig.harms += 1
        await asyncio.to_thread(rig.follow_primary)


async def _until_gone(rig: Rig, pids: Sequence[int], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > deadline:
            rig.faults.append(f"after SIGTERM, workers {list(pids)} lived for {seconds} s")
            return
        await asyncio.sleep(0.05)


def _out_of_time(rig: Rig) -> bool:
    return time.monotonic() > rig.started_at + rig.options.seconds
