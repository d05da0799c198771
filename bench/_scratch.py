"""Where a measurement takes place: its cores, its folder, its upstream."""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from msgspec import Struct

from bench._processes import Process

REPOSITORY = Path(__file__).resolve().parents[1]


class Cores(NamedTuple):
    """Which core each part is pinned to; all None where there is only one."""

    server: int | None
    rig: int | None
    store: int | None


def choose_cores() -> Cores:
    """Give the server a core of its own; a database gets a third, or shares the rig's."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return Cores(None, None, None)
    # The other thread of the server's core would take part of what is measured.
    others = [core for core in cores[1:] if core not in _siblings(cores[0])] or cores[1:]
    return Cores(cores[0], others[-1], others[-2] if len(others) > 1 else others[-1])


def _siblings(core: int) -> set[int]:
    try:
        listed = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list").read_text()
    except OSError:
        return set()
    found: set[int] = set()
    for part in listed.strip().split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


class Place(Struct, frozen=True):
    cores: Cores
    folder: Path
    upstream: Process
    upstream_port: int

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.upstream_port}/v1"

    def open_streams(self) -> int:
        """Return how many streams the upstream is sending now."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.upstream_port, timeout=10)) as connection:
            connection.request("GET", "/stats")
            streams: int = json.loads(connection.getresponse().read())["streams"]
            return streams


@contextmanager
def place() -> Iterator[Place]:
    """Start an upstream, with a folder that is gone afterwards."""
    cores = choose_cores()
    with TemporaryDirectory(prefix="sluice-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        # nginx drops its rights where it is started by root.
        folder.chmod(0o755)
        with rig("bench.upstream", cores.rig, folder) as upstream:
            assert upstream.stdout
            yield Place(cores, folder, upstream, int(upstream.stdout.readline()))


def rig(module: str, core: int | None, folder: Path, *arguments: str) -> Process:
    """Start a part of the rig, whose standard output can be read."""
    command = (sys.executable, "-m", module, *arguments)
    return Process(command, core, folder, working_folder=REPOSITORY, output=subprocess.PIPE)
