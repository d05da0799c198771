"""Processes: started on a core, measured with all their children, and gone afterwards. Linux only."""

import contextlib
import ctypes
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

START_SECONDS = 60.0
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_SIGNAL_AT_PARENTS_DEATH = 1  # PR_SET_PDEATHSIG
_LIBC = ctypes.CDLL(None)
# What a program needs to run at all. A setting of the service in the caller's environment must not leak in.
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "PYTHONPATH")


class NotStarted(Exception):
    """A program ended, or did not listen; the text is the end of what it wrote."""


def lift_descriptor_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Process:
    """A program and its children. To be used as a context manager: it is killed at the end."""

    def __init__(
        self,
        command: Sequence[str],
        core: int | None,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        working_folder: Path | None = None,
        output: int | None = None,
    ) -> None:
        """Start ``command`` on ``core`` (None: anywhere). Its log goes to ``folder``."""
        self.log = folder / f"{Path(command[0]).name}-{time.monotonic_ns()}.log"
        self.started = time.monotonic()
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        with self.log.open("wb") as log:
            self._popen = subprocess.Popen(
                command,
                cwd=working_folder or folder,
                env={**kept, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output or log,
                stderr=log,
                start_new_session=True,
                preexec_fn=lambda: _prepare(core),
            )
        self.pid = self._popen.pid
        self.stdout = self._popen.stdout

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        pids = tree(self.pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        for pid in pids:  # those that made a session of their own
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._popen.wait()
        if self.stdout:
            self.stdout.close()

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def wait(self, seconds: float) -> None:
        """Raise `NotStarted` when it has not ended by itself by then."""
        try:
            self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise NotStarted(f"did not end in {seconds:g} s: {self.said()}") from None

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-1500:].strip()

    def wait_for_port(self, port: int) -> None:
        """Return once it accepts connections. Raises `NotStarted`."""
        while True:
            if not self.running:
                raise NotStarted(self.said() or "ended without a word")
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                if time.monotonic() - self.started > START_SECONDS:
                    raise NotStarted(f"did not listen in {START_SECONDS:g} s. {self.said()}") from None
                time.sleep(0.01)
            else:
                return

    def cpu_seconds(self) -> float:
        """User and system time of it and all its children, also of those that have ended."""
        ticks = 0
        for pid in tree(self.pid):
            with contextlib.suppress(OSError):
                ticks += sum(map(int, _stat(pid)[11:15]))
        return ticks / _TICKS_PER_SECOND

    def pss_kib(self) -> int:
        """Memory of it and its children, what they share counted once."""
        return self._rollup("Pss:")

    def rss_kib(self) -> int:
        """Memory of it and its children, what they share counted for each."""
        return self._rollup("Rss:")

    def _rollup(self, name: str) -> int:
        total = 0
        for pid in tree(self.pid):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as lines:
                total += sum(int(line.split()[1]) for line in lines if line.startswith(name))
        return total


def tree(pid: int) -> list[int]:
    """Return a process and its children, and theirs."""
    children: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            children.setdefault(int(_stat(int(name))[1]), []).append(int(name))
    found: list[int] = []
    left = [pid]
    while left:
        found.append(left.pop())
        left += children.get(found[-1], [])
    return found


def busy_seconds(core: int | None) -> float:
    """Return how long a core, or all of them, have worked, for whomever; what a host took away counts too."""
    name = "cpu" if core is None else f"cpu{core}"
    with open("/proc/stat") as lines:
        fields = next(line.split()[1:] for line in lines if line.startswith(f"{name} "))
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, fields[:8])
    return (user + nice + system + irq + softirq + steal) / _TICKS_PER_SECOND


def _stat(pid: int) -> list[str]:
    """Return the fields of proc(5)'s ``stat`` from the third on: the second may hold spaces."""
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()


def _prepare(core: int | None) -> None:
    # Whatever becomes of the benchmark, nothing of it stays behind.
    _LIBC.prctl(_SIGNAL_AT_PARENTS_DEATH, signal.SIGKILL)
    if core is not None:
        os.sched_setaffinity(0, {core})
