"""What a store tells of itself, and what is wrong with it."""

from msgspec import Struct

from streaming.doctor.findings import Change, Finding

GIB = 1024**3
LEAST_FREE_BYTES = GIB // 2


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


def judge(store: Store, workers: int) -> list[Finding]:
    """Return what is wrong with the store of so many workers, or that nothing is."""
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
    if store.kind == "memory":
        return _memory(workers)
    judge_kind = {"sqlite": _sqlite, "redis": _redis}.get(store.kind)
    return judge_kind(store) if judge_kind else []


def _memory(workers: int) -> list[Finding]:
    several = workers > 1
    return [
        Finding(
            "fault" if several else "warning",
            "memory_store",
            "Streams are kept in each worker's memory",
            f"memory://, {workers or 1} worker{'s' * several}",
            "A reader who reaches another worker is told that there is none; a restart forgets all.",
            (Change("this service", "EVENTLOG_URL=sqlite:///streams.db, or redis://host:6379/0"),),
        )
    ]


def _sqlite(store: Store) -> list[Finding]:
    found = []
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


def _redis(store: Store) -> list[Finding]:
    found = []
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
