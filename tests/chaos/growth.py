"""What the service's processes hold while it works: sampled, judged for growth, drawn."""

import asyncio
import contextlib
import json
import re
import time
from pathlib import Path
from typing import Any

import apsw

from bench import svg
from tests.chaos.rig import Instance, Rig
from tests.chaos.wire import Lost, exchange

EVERY_SECONDS = 5.0
MOST_GROWTH = 0.05
"""Over the second half, as a part of the middle value."""
SLACK = {"RSS MiB": 6.0, "PSS MiB": 6.0, "descriptors": 12.0, "threads": 2.0, "greenlets": 12.0}
"""What is judged, and how much its samples move on their own."""
MOST_WAL_MIB = 64.0
_GREENLETS = re.compile(r"^\w*greenlets\w*(?:\{[^}]*\})? ([0-9.e+]+)", re.MULTILINE)

Sample = dict[str, float]


class Growth:
    """Samples of one campaign."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._began = time.monotonic()
        self.samples: list[Sample] = []

    async def sample(self) -> None:
        """Take a sample every few seconds, until it is cancelled."""
        while True:
            self.samples.append(await self._now())
            await asyncio.sleep(EVERY_SECONDS)

    async def _now(self) -> Sample:
        found: Sample = {"seconds": time.monotonic() - self._began}
        for instance in self._rig.instances:
            for pid in [instance.process.pid, *instance.worker_pids()]:
                with contextlib.suppress(OSError):  # it ended meanwhile
                    for name, value in await asyncio.to_thread(_process, pid):
                        found[name] = found.get(name, 0) + value
            found |= await _greenlets(instance)
        return found | await asyncio.to_thread(_store, self._rig.out)

    def faults(self) -> list[str]:
        """Return a sentence for each thing that grew."""
        half = self.samples[len(self.samples) // 2 :]
        found = []
        for name, slack in SLACK.items():
            points = [(sample["seconds"], sample[name]) for sample in half if name in sample]
            if (told := grows(points, slack)) is not None:
                found.append(f"{name} grew by {told:.1f} over the second half")
        most = max((sample.get("WAL MiB", 0.0) for sample in self.samples), default=0.0)
        if most > MOST_WAL_MIB:
            found.append(f"the WAL grew to {most:.0f} MiB")
        if len(half) < 3:
            found.append(f"only {len(self.samples)} samples: too short to judge")
        return found

    def table(self) -> str:
        """Return the first, middle and last value of each."""
        rows = [f"{'':16}{'a quarter in':>14}{'half-way':>14}{'at the end':>14}{'most':>14}"]
        for name in self._names():
            values = [sample[name] for sample in self.samples if name in sample]
            at = (values[len(values) // 4], values[len(values) // 2], values[-1], max(values))
            rows.append(f"{name:16}" + "".join(f"{value:14,.1f}" for value in at))
        return "\n".join(rows)

    def write(self, out: Path) -> None:
        """Write the samples, and draw them."""
        lines = [json.dumps(sample) + "\n" for sample in self.samples]
        (out / "soak.jsonl").write_text("".join(lines))
        panels = [self._panel(name) for name in self._names()]
        (out / "soak.svg").write_text(svg.page("What the service held", panels))

    def _names(self) -> list[str]:
        return [name for name in dict.fromkeys(n for s in self.samples for n in s) if name != "seconds"]

    def _panel(self, name: str) -> svg.Panel:
        points = [(sample["seconds"] / 60, sample[name]) for sample in self.samples if name in sample]
        what, _, unit = name.partition(" ")
        return svg.over_time(what, "minutes", unit, points)


def grows(points: list[tuple[float, float]], slack: float) -> float | None:
    """Return by how much a line through the points rises, where that is too much; else ``None``.

    >>> grows([(0, 100.0), (1, 104.0), (2, 108.0)], 1.0)
    8.0
    >>> grows([(0, 100.0), (1, 104.0), (2, 100.0)], 1.0)
    """
    if len(points) < 3:
        return None
    mid_x = sum(x for x, _ in points) / len(points)
    mid_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mid_x) ** 2 for x, _ in points)
    slope = sum((x - mid_x) * (y - mid_y) for x, y in points) / spread if spread else 0.0
    rise = slope * (points[-1][0] - points[0][0])
    return rise if rise > max(slack, MOST_GROWTH * mid_y) else None


def _process(pid: int) -> list[tuple[str, float]]:
    proc = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    rollup = (proc / "smaps_rollup").read_text().split()
    return [
        ("RSS MiB", int(status["VmRSS"].split()[0]) / 1024),
        ("PSS MiB", int(rollup[rollup.index("Pss:") + 1]) / 1024),
        ("descriptors", len(list((proc / "fd").iterdir()))),
        ("threads", int(status["Threads"])),
    ]


async def _greenlets(instance: Instance) -> Sample:
    """Return their number where the service tells it."""
    try:
        answer = await exchange(instance.port, "GET", "/metrics", seconds=2.0)
    except Lost:
        return {}
    text = answer.body.decode("utf-8", "replace") if isinstance(answer.body, bytes) else ""
    found = _GREENLETS.findall(text) if answer.status == 200 else []
    return {"greenlets": sum(map(float, found))} if found else {}


def _store(out: Path) -> Sample:
    """Return the size of the SQLite log, where there is one."""
    path = out / "log.db"
    if not path.exists():
        return {}
    wal = out / "log.db-wal"
    found: dict[str, Any] = {
        "WAL MiB": wal.stat().st_size / 2**20 if wal.exists() else 0.0,
        "log MiB": path.stat().st_size / 2**20,
    }
    with contextlib.suppress(apsw.Error):
        db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            ((found["streams rows"],),) = db.execute("SELECT count(*) FROM streams").fetchall()
        finally:
            db.close()
    return found
