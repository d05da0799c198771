"""Everything that runs in one campaign: the upstream, the service's instances, the store, the logs."""

import asyncio
import contextlib
import ctypes
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos import checker
from tests.chaos.clients import Clients, Log
from tests.chaos.evidence import Evidence
from tests.chaos.wire import Lost, exchange
from tests.contracts.redis_server import RedisServer
from tests.live.service import REPOSITORY, free_port
from tests.log_scan import LogScan

START_SECONDS = 60.0
GRACE_SECONDS = 4.0
HEARTBEAT_SECONDS = 2.0
LEASE_SECONDS = 10.0
ENVIRONMENT = {
    "OPENAI_API_KEY": "sk-chaos",
    "MODEL": "test-model",
    "RUNNABLES": "none",
    "DISCONNECT_GRACE_SECONDS": str(GRACE_SECONDS),
    "HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS),
    "LEASE_SECONDS": str(LEASE_SECONDS),
    "DRAIN_SECONDS": "3",
    "WRITE_TIMEOUT_SECONDS": "25",
    "RETENTION_SECONDS": "86400",
}


@dataclass(frozen=True)
class Options:
    name: str
    out: Path
    kills: int = 50
    pauses: int = 8
    restarts: int = 8
    store_restarts: int = 8
    failovers: int = 8
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
    minutes: float = 5.0
    """Of a soak."""
    workers: int = 0
    """In each instance; 0 for what suits the campaign, as with ``instances``."""
    instances: int = 0
    graphs: float = 0.0
    """The part of the streams that a graph answers, not the model itself."""
    store: str = "sqlite"
    seed: int = 1


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
        self.store: RedisServer | None = None
        self.replica: RedisServer | None = None
        try:
            environment = _environment() | ENVIRONMENT | self._store_environment()
            if options.name == "soak":  # long enough for its readers, and so short that the log stops growing
                environment["RETENTION_SECONDS"] = str(max(40.0, options.minutes * 6))
            if options.graphs:
                environment["RUNNABLES"] = "graph=tests.chaos.graph:graph"
            environment["OPENAI_BASE_URL"] = f"http://127.0.0.1:{self.upstream_port}/v1"
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
        options = ("--appendonly", "yes", "--maxmemory-policy", "noeviction")
        self.store = RedisServer(self.out / "redis", *options)
        self.store.start()
        if self.options.name == "failovers":
            self.replica = RedisServer(self.out / "redis-replica", *options)
            self.follow_primary()
        return {"EVENTLOG_URL": self.store.url}

    def follow_primary(self) -> None:
        """Start the replica and return when it holds what the primary holds. Blocks."""
        assert self.store is not None
        assert self.replica is not None
        self.replica.start("--replicaof", f"127.0.0.1 {self.store.port}")
        deadline = time.monotonic() + START_SECONDS
        while b"master_link_status:up" not in self.replica.ask("INFO", "replication"):
            assert time.monotonic() < deadline, "the replica does not follow"
            time.sleep(0.02)

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
        scan = LogScan()
        for log in self.out.glob("service-*.log"):
            scan.watch(log)
        self.faults += [f"{hit.file.name}:{hit.line}: {hit.what} in the log" for hit in scan.hits()]
        outcomes = checker.check(Evidence.read(self.out))
        if self.faults:
            outcomes.append(checker.Outcome("campaign", 0, self.faults))
        return outcomes

    def close(self) -> None:
        """Kill what is left."""
        for instance in self.instances:
            instance.kill()
        for server in (self.store, self.replica):
            if server is not None:
                server.stop()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._upstream.pid, signal.SIGKILL)
        self._upstream.wait(timeout=10)
        self._upstream.stdout.close()
