"""Whether a process of this host may still live, and a clock its processes share."""

import os
import time
from typing import NamedTuple

# Goes on while the machine sleeps, and is the same for every process of a boot.
_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

forks = 0
"""How often this process was forked off: what was opened before belongs to another one."""


class Process(NamedTuple):
    boot: str
    namespace: str
    """Of its process ids: another container's say nothing here."""
    pid: int
    started: int
    """In the kernel's ticks since boot: tells a process from a later one with its pid."""


def _count_fork() -> None:
    global forks
    forks += 1


os.register_at_fork(after_in_child=_count_fork)


def boot_seconds() -> float:
    return time.clock_gettime(_BOOT_CLOCK)


def this_process() -> Process:
    return Process(_boot(), _namespace(), os.getpid(), _started(os.getpid()))


def may_live(process: Process) -> bool:
    """Return whether the process could be alive; true where that cannot be known."""
    if process.boot != _boot():
        return False
    if process.namespace != _namespace() or process.started == 0:
        return True
    return _started(process.pid) == process.started


def _started(pid: int) -> int:
    """Return the start time of a process, 0 if there is none or the system doesn't tell.

    Source: proc(5), ``/proc/[pid]/stat``, field 22. A zombie counts as gone.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def _boot() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id") as boot_id:
            return boot_id.read().strip()
    except OSError:
        return "unknown"


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return "unknown"
