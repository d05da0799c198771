"""What this process knows of itself: how it was started, and how it is."""

import functools
import os
import platform
import resource
import sys
import time
from collections import deque
from typing import Any

import gevent
from flask import Request
from gevent import monkey

from streaming.doctor.service import Facts
from streaming.settings import Settings
from streaming.streams import Streams

LOOK_SECONDS = 0.1
REMEMBERED_SECONDS = 60.0
# What gevent replaces, and what waits outside of its loop if somebody still holds the old one.
REPLACED = {
    "socket": ("socket", "create_connection", "getaddrinfo"),
    "ssl": ("SSLContext",),
    "time": ("sleep",),
}
# They hold the old ones on purpose.
EXEMPT = ("gevent", "socket", "ssl", "time", "_socket", "_ssl")


class LoopWatch:
    """Notes how late the loop calls it. One for each process, which is `watch`."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._late: deque[float] = deque(maxlen=int(REMEMBERED_SECONDS / LOOK_SECONDS))
        self._greenlet = gevent.spawn(self._look)

    @property
    def worst_ms(self) -> float | None:
        """Of the last minute; None where there is nothing to tell yet."""
        return max(self._late) * 1000 if self._late else None

    def _look(self) -> None:
        while True:
            due = time.monotonic() + LOOK_SECONDS
            gevent.sleep(LOOK_SECONDS)
            self._late.append(max(0.0, time.monotonic() - due))


_watches: list[LoopWatch] = []


def watch() -> LoopWatch:
    """Return this process's watch, which begins with the first call in it."""
    if not _watches or _watches[-1].pid != os.getpid():
        _watches[:] = [LoopWatch()]
    return _watches[-1]


def facts_of(request: Request, streams: Streams, settings: Settings) -> Facts:
    """Gather them. Blocks as long as the store takes to answer."""
    server = request.environ.get("SERVER_SOFTWARE", "")
    # Late, because it asks for the code of all modules.
    late = _patched_late()
    return Facts(
        at=time.time(),
        python=platform.python_version(),
        gevent=gevent.__version__,
        patched=bool(monkey.is_module_patched("socket")),
        patched_late=late,
        loop_lag_ms=watch().worst_ms,
        store=streams.describe_store(),
        heartbeat_seconds=settings.heartbeat_seconds,
        drain_seconds=settings.drain_seconds,
        open_files=_open_files(),
        file_limit=_file_limit(),
        server=server,
        **_gunicorn(),
    )


def _gunicorn() -> dict[str, Any]:
    """Return what gunicorn was told, whichever configuration it was started with.

    It gives an application no way to ask. But it is its worker who calls.
    """
    try:
        from gunicorn.workers.base import Worker
    except ImportError:
        return {}
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        worker = frame.f_locals.get("self")
        if isinstance(worker, Worker):
            cfg = worker.cfg
            kind = type(worker)
            return {
                "worker_class": f"{kind.__module__}.{kind.__qualname__}",
                "workers": cfg.workers,
                "timeout_seconds": float(cfg.timeout),
                "graceful_timeout_seconds": float(cfg.graceful_timeout),
                "keepalive_seconds": float(cfg.keepalive),
                "max_requests": cfg.max_requests,
                "preload": bool(cfg.preload_app),
                "worker_connections": cfg.worker_connections,
            }
    return {}


@functools.cache
def _patched_late() -> tuple[str, ...]:
    """Return the modules that hold what gevent has replaced since.

    Such a module was imported before gevent was put in place, and will go on so.
    """
    old = {id(monkey.get_original(name, what)) for name, names in REPLACED.items() for what in names}
    old -= {id(getattr(sys.modules[name], what)) for name, names in REPLACED.items() for what in names}
    found = []
    for place, (name, module) in enumerate(list(sys.modules.items())):
        if place % 100 == 0:
            gevent.sleep(0)
        if name.partition(".")[0] in EXEMPT or module is None:
            continue
        if any(id(value) in old for value in list(getattr(module, "__dict__", {}).values())):
            found.append(name)
    return tuple(sorted(found)[:50])


def _open_files() -> int | None:
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            return len(os.listdir(folder))
        except OSError:
            continue
    return None


def _file_limit() -> int | None:
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft
