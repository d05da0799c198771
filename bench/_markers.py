"""Markers: each chunk's text is ``@<number>:<time>@``, so a client can tell what became of every chunk.

The number counts the chunks of a stream from 0. The time is that of the machine's
monotonic clock, in nanoseconds, at the moment the upstream sent the chunk; the
clock is one for all processes, so the difference to now is the way's latency.
"""

import re
from array import array

_MARKER = re.compile(rb"@(\d+):(\d+)@")
_MOST_MARKER_BYTES = 48


class Markers:
    """Checks that each of ``count`` chunks, from ``first`` on, arrives once and in order."""

    __slots__ = ("_end", "_latencies_ns", "_missing", "_tail", "late", "next", "repeated")

    def __init__(self, count: int, latencies_ns: "array[int]", first: int = 0) -> None:
        self.next = first
        self.late = 0
        """Chunks that came after a later one."""
        self.repeated = 0
        self._end = first + count
        self._latencies_ns = latencies_ns
        self._missing: set[int] = set()
        self._tail = b""

    @property
    def lost(self) -> int:
        return len(self._missing) + max(0, self._end - self.next)

    @property
    def fault(self) -> str:
        """What is wrong, once the stream has ended; empty when nothing is."""
        found = {
            "repeated": self.repeated,
            "reordered": self.late,
            "too many": max(0, self.next - self._end),
            "lost": self.lost,
        }
        return ", ".join(f"{count} {name}" for name, count in found.items() if count)

    def feed(self, text: bytes, now_ns: int) -> int:
        """Read the markers in what has just come, and return how many there are.

        A marker may be cut anywhere by the reads it comes in.
        """
        if self._tail:
            text = self._tail + text
            self._tail = b""
        count = end = 0
        for found in _MARKER.finditer(text):
            count += 1
            end = found.end()
            number = int(found[1])
            self._latencies_ns.append(now_ns - int(found[2]))
            if number == self.next:
                self.next = number + 1
            else:
                self._out_of_turn(number)
        at = text.rfind(b"@", end)
        if at >= 0 and len(text) - at < _MOST_MARKER_BYTES:
            self._tail = text[at:]
        return count

    def _out_of_turn(self, number: int) -> None:
        if number > self.next:
            # No more is remembered than can still come, whatever number is claimed.
            self._missing.update(range(self.next, min(number, self._end)))
            self.next = number + 1
        elif number in self._missing:
            self._missing.discard(number)
            self.late += 1
        else:
            self.repeated += 1
