"""The files of all workers: which are alive, and what the dead had counted."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from streaming.metrics import _cells
from streaming.metrics._cells import Cells, Entry
from streaming.metrics._names import GAUGES

GONE = "gone"
SUFFIX = ".cells"


def make_directory() -> str:
    """Return a new directory for the workers of this server, in memory where the system has that."""
    shared = "/dev/shm"
    parent = shared if os.access(shared, os.W_OK | os.X_OK) else None
    return tempfile.mkdtemp(prefix="sluice-metrics-", dir=parent)


def clean(directory: str) -> None:
    """Make it if it is not there; forget what earlier starts of the server had counted."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    for path in Path(directory).glob(f"*{SUFFIX}"):
        if not _is_alive(path):
            path.unlink(missing_ok=True)


def remove_directory(directory: str) -> None:
    """Remove it with what is in it. Raises nothing."""
    for path in Path(directory).glob("*"):
        path.unlink(missing_ok=True)
    with suppress(OSError):  # somebody put something else there, or removed it before us
        os.rmdir(directory)


def path_of_this_process(directory: str) -> Path:
    pid = os.getpid()
    return Path(directory, f"{pid}-{_started(pid)}{SUFFIX}")


def everybody(directory: str) -> Iterator[tuple[bool, list[Entry]]]:
    """Yield for each worker whether it lives, and its entries; what the dead had, too."""
    with _locked(directory, fcntl.LOCK_SH):
        for path in sorted(Path(directory).glob(f"*{SUFFIX}")):
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                continue
            yield _is_alive(path), list(_cells.read(content))


def fold_dead(directory: str) -> None:
    """Add what the dead have counted to one file, so that files do not pile up.

    For the server's master. Raises nothing: what cannot be done now is done with the next.
    """
    with suppress(OSError):
        _fold_dead(directory)


def _fold_dead(directory: str) -> None:
    with _locked(directory, fcntl.LOCK_EX):
        dead = [path for path in Path(directory).glob(f"*{SUFFIX}") if not _is_alive(path)]
        if len(dead) < 2:
            return
        sums: dict[tuple[str, ...], list[float]] = {}
        for path in dead:
            for entry in _cells.read(path.read_bytes()):
                if entry.name in GAUGES:
                    continue
                kept = sums.setdefault((entry.name, *entry.labels), [0.0] * len(entry.values))
                for place, value in enumerate(entry.values[: len(kept)]):
                    kept[place] += value
        folded = Path(directory, f"{GONE}.new")
        cells = Cells(folded)
        for (name, *labels), values in sums.items():
            at = cells.place(name, labels, len(values))
            for place, value in enumerate(values):
                cells.values[at + place] = value
        cells.close()
        for path in dead:
            path.unlink()
        folded.rename(Path(directory, f"{GONE}{SUFFIX}"))


@contextmanager
def _locked(directory: str, how: int) -> Iterator[None]:
    """Keep the folding of the dead and the reading of all apart. Held for milliseconds."""
    descriptor = os.open(Path(directory, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def _is_alive(path: Path) -> bool:
    pid, _, started = path.name.removesuffix(SUFFIX).partition("-")
    return pid.isdigit() and started == str(_started(int(pid)))


def _started(pid: int) -> int:
    """Return when a process began, 0 if there is none: tells it from a later one with its id.

    Source: proc(5), ``/proc/[pid]/stat``, field 22. A zombie counts as gone.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])
