"""What a service knows of itself, and what is wrong with it."""

from msgspec import Struct

from streaming.doctor.findings import Change, Finding

GIB = 1024**3
LEAST_FREE_BYTES = GIB // 2
LEAST_FILES = 4096
SLOW_LOOP_MS = 250.0
BLOCKED_LOOP_MS = 1000.0
STOP_SECONDS = 5.0
"""That the application needs after its drain."""


class Store(Struct, frozen=True):
    """What a store tells of itself. Fields of other kinds of stores keep their defaults."""

    kind: str
    version: str = ""
    synchronous: str = ""
    file_system: str = ""
    free_bytes: int | None = None
    log_bytes: int | None = None
    full: bool = False
    policy: str | None = None
    """Redis' ``maxmemory-policy``; None where it does not tell."""
    persistence: str = ""
    replicas: str = ""
    answer_ms: float | None = None
    clock_ahead_seconds: float | None = None
    unreachable: str = ""


class Facts(Struct, frozen=True):
    at: float
    """Seconds since 1970."""
    python: str
    gevent: str
    patched: bool
    """gevent has replaced the blocking parts of the standard library."""
    patched_late: tuple[str, ...]
    """Modules that still hold what was there before."""
    loop_lag_ms: float | None
    """The longest the loop stood still in the last minute; None: nobody watches."""
    store: Store
    heartbeat_seconds: float
    drain_seconds: float
    open_files: int | None
    file_limit: int | None
    server: str = ""
    worker_class: str = ""
    """Of gunicorn; empty: another server."""
    workers: int = 0
    timeout_seconds: float = 0.0
    graceful_timeout_seconds: float = 0.0
    keepalive_seconds: float = 0.0
    max_requests: int = 0
    preload: bool = False
    worker_connections: int = 0


def judge(facts: Facts) -> list[Finding]:
    return [*_server(facts), *_patching(facts), *_loop(facts), *_store(facts), *_files(facts)]


GUNICORN = "Start it with its own configuration: gunicorn -c gunicorn.conf.py wsgi:app, without "


def _server(facts: Facts) -> list[Finding]:
    if not facts.worker_class:
        return [
            Finding(
                "warning",
                "server",
                "The server is not gunicorn",
                facts.server or "it does not say what it is",
                "In most servers a stream holds a thread or process, and a client who leaves is not seen.",
                (Change("gunicorn", GUNICORN + "another server in front of the application."),),
            )
        ]
    found = []
    measured = (
        f"{facts.worker_class}, {facts.workers} worker{'s' * (facts.workers != 1)}, timeout "
        f"{facts.timeout_seconds:g} s, graceful_timeout {facts.graceful_timeout_seconds:g} s, "
        f"keepalive {facts.keepalive_seconds:g} s"
    )
    if "gevent" not in facts.worker_class.lower():
        found.append(
            Finding(
                "fault",
                "worker_class",
                "The worker class is not gevent's",
                measured,
                "Each open stream then holds a worker or thread: a few readers, and nobody else is answered.",
                (Change("gunicorn", 'worker_class = "streaming.gevent_worker.LeanGeventWorker" (no -k)'),),
            )
        )
    elif "LeanGeventWorker" not in facts.worker_class:
        found.append(
            Finding(
                "note",
                "worker_class",
                "The worker class is gevent's, not this service's own",
                measured,
                "It works, and costs more for each chunk.",
                (Change("gunicorn", 'worker_class = "streaming.gevent_worker.LeanGeventWorker" (no -k)'),),
            )
        )
    if facts.preload:
        found.append(
            Finding(
                "fault",
                "preload",
                "The application is loaded before the workers are forked",
                "preload_app is on",
                "The store's connections and watching greenlets stay behind in the first process: "
                "runs are not watched, and waiting readers are not woken.",
                (Change("gunicorn", "preload_app = False (no --preload)"),),
            )
        )
    least = facts.drain_seconds + STOP_SECONDS
    if facts.graceful_timeout_seconds < least:
        found.append(
            Finding(
                "warning",
                "graceful_timeout",
                "A worker that stops is killed before it has ended its runs",
                f"graceful_timeout {facts.graceful_timeout_seconds:g} s, "
                f"DRAIN_SECONDS {facts.drain_seconds:g}",
                "Streams are then cut without a word, and their readers wait for the lease to run out.",
                (
                    Change("gunicorn", f"graceful_timeout = {least + 2:g}"),
                    Change("this service", f"DRAIN_SECONDS={max(0.0, facts.graceful_timeout_seconds - 7):g}"),
                ),
            )
        )
    if facts.max_requests:
        found.append(
            Finding(
                "warning",
                "max_requests",
                "Workers are replaced after a number of requests",
                f"max_requests = {facts.max_requests}",
                "Each replacement drains a worker and sends all its readers away.",
                (Change("gunicorn", "max_requests = 0"),),
            )
        )
    if 0 < facts.keepalive_seconds < 5:
        found.append(
            Finding(
                "note",
                "keepalive",
                "Idle connections are closed quickly",
                f"keepalive = {facts.keepalive_seconds:g}",
                "A proxy that sends a request on a connection that is just being closed answers 502.",
                (Change("gunicorn", "keepalive = 75"),),
            )
        )
    return found or [Finding("ok", "server", "gunicorn runs as it should", measured)]


def _patching(facts: Facts) -> list[Finding]:
    change = Change(
        "gunicorn",
        "from gevent import monkey; monkey.patch_all() as the first line of the file that -c names, "
        "as in gunicorn.conf.py",
    )
    if not facts.patched:
        return [
            Finding(
                "fault",
                "not_patched",
                "gevent has not replaced the blocking calls",
                f"gevent {facts.gevent}: socket is Python's own",
                "One request that waits for a model stops every other one in its worker.",
                (change,),
            )
        ]
    if facts.patched_late:
        return [
            Finding(
                "fault",
                "patched_late",
                "gevent was put in place too late",
                f"{len(facts.patched_late)} modules hold what was there before: "
                f"{', '.join(facts.patched_late[:6])}",
                "What they ask over TLS fails with a TypeError or without an end, and what they wait for "
                "stops the whole worker.",
                (change,),
            )
        ]
    return [Finding("ok", "patching", "gevent was put in place first", f"gevent {facts.gevent}")]


def _loop(facts: Facts) -> list[Finding]:
    if facts.loop_lag_ms is None:
        return []
    measured = f"{facts.loop_lag_ms:.0f} ms at most in the last minute"
    if facts.loop_lag_ms < SLOW_LOOP_MS:
        return [Finding("ok", "loop", "The worker's loop is not held up", measured)]
    return [
        Finding(
            "fault" if facts.loop_lag_ms >= BLOCKED_LOOP_MS else "warning",
            "loop",
            "The worker's loop stands still at times",
            measured,
            "So long no reader of this worker hears anything. Something computes, or waits in a call that "
            "gevent cannot replace.",
            (
                Change(
                    "your runnables", "gevent.get_hub().threadpool.apply(…) around what computes or blocks"
                ),
                Change("this service", "WEB_CONCURRENCY=<one for each core>, if the processor is busy"),
            ),
        )
    ]


def _store(facts: Facts) -> list[Finding]:
    store = facts.store
    if store.unreachable:
        return [
            Finding(
                "fault",
                "store",
                "The store does not answer",
                store.unreachable,
                "No run can be started, and no event is written.",
                (Change("this service", "EVENTLOG_URL, or start the server it names"),),
            )
        ]
    judge_kind = {"memory": _memory, "sqlite": _sqlite, "redis": _redis}.get(store.kind)
    return judge_kind(facts) if judge_kind else []


def _memory(facts: Facts) -> list[Finding]:
    several = facts.workers > 1
    return [
        Finding(
            "fault" if several else "warning",
            "memory_store",
            "Streams are kept in each worker's memory",
            f"memory://, {facts.workers or 1} worker{'s' * several}",
            "A reader who reaches another worker is told that there is none; a restart forgets all.",
            (Change("this service", "EVENTLOG_URL=sqlite:///streams.db, or redis://host:6379/0"),),
        )
    ]


def _sqlite(facts: Facts) -> list[Finding]:
    store, found = facts.store, []
    free = store.free_bytes
    measured = (
        f"SQLite {store.version}, {store.synchronous}, on {store.file_system or 'an unknown file system'}"
    )
    if free is not None:
        measured += f", {free / GIB:.1f} GiB free"
    if store.full or (free is not None and free < LEAST_FREE_BYTES):
        found.append(
            Finding(
                "fault" if store.full else "warning",
                "disk",
                "The disk of the event log is full" if store.full else "The disk is nearly full",
                measured,
                "New runs are refused once nothing can be written.",
                (Change("this service", "RETENTION_SECONDS=<less>, or EVENTLOG_URL on a larger disk"),),
            )
        )
    if store.file_system in ("overlay", "tmpfs"):
        found.append(
            Finding(
                "note",
                "ephemeral_disk",
                "The event log is on a disk that may go with its container",
                measured,
                "After a deploy or restart, streams and conversations from before are gone.",
                (
                    Change(
                        "this service", "EVENTLOG_URL=sqlite:////a/mounted/volume/streams.db, or redis://…"
                    ),
                ),
            )
        )
    return found or [Finding("ok", "store", "The store is sound", measured)]


def _redis(facts: Facts) -> list[Finding]:
    store, found = facts.store, []
    measured = f"{store.version}, maxmemory-policy {store.policy or 'not told'}, {store.persistence}"
    if store.answer_ms is not None:
        measured += f", answers in {store.answer_ms:.1f} ms"
    if store.policy not in (None, "noeviction"):
        found.append(
            Finding(
                "fault",
                "redis_policy",
                "Redis throws streams away when its memory is short",
                measured,
                "A stream that loses a key in the middle of its run is lost to its readers.",
                (Change("Redis", "maxmemory-policy noeviction"),),
            )
        )
    if store.persistence == "none" and store.replicas in ("", "0"):
        found.append(
            Finding(
                "warning",
                "redis_persistence",
                "Redis keeps nothing over a restart",
                measured,
                "When it restarts, runs are lost and conversations are gone.",
                (Change("Redis", "appendonly yes"),),
            )
        )
    if store.clock_ahead_seconds is not None and abs(store.clock_ahead_seconds) > 2:
        found.append(
            Finding(
                "warning",
                "store_clock",
                "The clocks of this machine and of Redis differ",
                f"Redis is {store.clock_ahead_seconds:+.1f} s of this machine",
                "Several machines then disagree about what has expired.",
                (Change("both machines", "timedatectl set-ntp true"),),
            )
        )
    return found or [Finding("ok", "store", "The store is sound", measured)]


def _files(facts: Facts) -> list[Finding]:
    if facts.file_limit is None:
        return []
    open_files = "?" if facts.open_files is None else facts.open_files
    measured = f"{open_files} files open, {facts.file_limit} allowed"
    if facts.file_limit >= LEAST_FILES and (facts.open_files or 0) < 0.8 * facts.file_limit:
        return [Finding("ok", "files", "There is room for connections", measured)]
    return [
        Finding(
            "warning",
            "files",
            "Few connections fit into this process",
            measured,
            "Each reader and each run needs one; beyond that, connections are refused.",
            (
                Change("systemd", "LimitNOFILE=65536"),
                Change("Docker", "--ulimit nofile=65536:65536"),
                Change("a shell", "ulimit -n 65536"),
            ),
        )
    ]
