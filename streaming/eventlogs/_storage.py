"""What the file of a store needs of the machine it is on."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streaming.errors import SettingsError

NETWORK_FILE_SYSTEMS = frozenset(
    "nfs nfs4 cifs smb3 smbfs afs ceph lustre glusterfs fuse.glusterfs fuse.sshfs fuse.s3fs".split()
)


def check_library(version: str) -> None:
    """Refuse an SQLite whose WAL can be corrupted by two writers at the same instant.

    Fixed in 3.51.3, and in 3.50.7 and 3.44.6. Source: https://www.sqlite.org/changes.html
    """
    number = tuple(int(part) for part in version.split(".")[:3])
    if number < (3, 51, 3) and not ((3, 50, 7) <= number < (3, 51) or (3, 44, 6) <= number < (3, 45)):
        raise SettingsError(
            f"SQLite {version} can corrupt a log that several workers write; install a current apsw"
        )


def prepare(path: Path) -> None:
    """Make the folder; refuse one that cannot be written or is on a network."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"EVENTLOG_URL: cannot make {path.parent}: {error.strerror}") from None
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise SettingsError(f"EVENTLOG_URL: {path} cannot be written")
    kind = file_system(path.parent)
    if kind in NETWORK_FILE_SYSTEMS:
        raise SettingsError(
            f"EVENTLOG_URL: {path} is on a network file system ({kind}), where SQLite loses data;"
            " use a local disk, or redis:// from the second machine on"
        )


def file_system(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """Return the type of the file system ``folder`` is on, "" where that is not told.

    Source: proc(5), ``/proc/[pid]/mounts``.
    """
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return ""
    best, kind = "", ""
    resolved = str(folder.resolve())
    for line in lines:
        _, point, type_, *_ = line.split()
        point = point.replace("\\040", " ")
        inside = resolved == point or resolved.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, type_
    return kind


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process of this machine at a time open or make the store. Blocks."""
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def move_aside(path: Path) -> Path:
    """Rename the file of a store, and what belongs to it; return its new name."""
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    for suffix in ("", "-wal", "-shm"):
        if os.path.exists(f"{path}{suffix}"):
            os.rename(f"{path}{suffix}", f"{aside}{suffix}")
    return aside
