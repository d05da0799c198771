"""Where and on what a run was made: a result without it cannot be compared with anything."""

import datetime
import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

from msgspec import Struct

from bench._scratch import REPOSITORY, Cores, choose_cores

PACKAGES = ("flask", "gunicorn", "gevent", "msgspec", "openai", "httpx2", "langchain-core", "apsw", "hiredis")


class Machine(Struct, frozen=True):
    cpu: str
    cores: int
    pinned: Cores
    memory_mib: int
    kernel: str
    python: str
    versions: dict[str, str]
    load_average: float
    """Of the last minute, before the run: above 0.5 others were at work."""


class Run(Struct, frozen=True):
    commit: str
    dirty: bool
    """The files were not those of the commit."""
    date: str
    machine: Machine

    @property
    def name(self) -> str:
        """A file's name that sorts by time."""
        return f"{self.date[:16].replace(':', '')}-{self.commit[:7]}{'-dirty' if self.dirty else ''}"


def this_run() -> Run:
    changed = [
        line for line in _said("git", "status", "--porcelain").splitlines() if "bench/results/" not in line
    ]
    return Run(
        commit=_said("git", "rev-parse", "HEAD") or "unknown",
        dirty=bool(changed),
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        machine=this_machine(),
    )


def this_machine() -> Machine:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if nginx := shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"):
        versions["nginx"] = _said(nginx, "-v").rpartition("/")[2]
    return Machine(
        cpu=_field("/proc/cpuinfo", "model name") or platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        pinned=choose_cores(),
        memory_mib=int(_field("/proc/meminfo", "MemTotal").split()[0]) // 1024,
        kernel=platform.release(),
        python=platform.python_version(),
        versions=versions,
        load_average=os.getloadavg()[0],
    )


def _said(*command: str) -> str:
    try:
        done = subprocess.run(
            command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _field(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
