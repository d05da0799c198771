"""What the scripts answer, parsed."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from streaming.eventlogs import _host
from streaming.events import Record


class Lease(NamedTuple):
    """How a worker stands, as the server's clock tells, and where it runs."""

    worker_id: str
    state: str
    """``held``, ``over``, or ``none`` for a worker that retired or never was."""
    process: _host.Process | None

    @property
    def held(self) -> bool:
        return self.state == "held"

    @property
    def dead(self) -> bool:
        """Known to be gone, whatever the lease says: a process of this very machine that is no more."""
        if self.process is None or self.process.boot != _host.this_process().boot:
            return False
        return not _host.may_live(self.process)


def lease(answer: Sequence[bytes]) -> Lease:
    worker_id, state, *process = (field.decode() for field in answer)
    if not process:
        return Lease(worker_id, state, None)
    boot, namespace, pid, started = process
    return Lease(worker_id, state, _host.Process(boot, namespace, int(pid), int(started)))


def records(batches: Sequence[bytes], after: int) -> Iterator[Record]:
    """Return the events of batches (id, gen, count, payloads; and so on) that come after ``after``."""
    for place in range(0, len(batches), 4):
        last, gen, count = int(batches[place][:-2]), int(batches[place + 1]), int(batches[place + 2])
        first = last - count + 1
        skip = max(0, after + 1 - first)
        for seq, payload in enumerate(batches[place + 3].split(b"\n")[skip:], first + skip):
            yield Record(gen, seq, payload)
