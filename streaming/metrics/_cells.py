"""Numbers that outlive their process: one file a worker, which every worker can read.

A worker adds to its own cells in memory that is mapped from the file, so what a
worker that is killed had counted is not lost, and nobody waits for a lock. The
file is a list of entries: a name with its labels, then the numbers it has.
"""

import json
import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

SIZE_BYTES = 512 * 1024
"""Of the file, which is sparse: unused parts of it take no room."""
_USED = struct.Struct("<Q")
_HEAD = struct.Struct("<II")
"""Of an entry: the bytes of its name, padded to 8, and how many numbers follow."""


class Entry(NamedTuple):
    name: str
    labels: tuple[str, ...]
    values: Sequence[float]


class Cells:
    """The cells of this process; without a path they are in its own memory only."""

    def __init__(self, path: Path | None = None) -> None:
        if path is None:
            self._map = mmap.mmap(-1, SIZE_BYTES)
        else:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                os.ftruncate(descriptor, SIZE_BYTES)
                self._map = mmap.mmap(descriptor, SIZE_BYTES)
            finally:
                os.close(descriptor)
        self.values = memoryview(self._map).cast("d")
        """Add to a number by its place."""
        self._used = _USED.size
        self._places: dict[tuple[str, ...], int] = {}
        self.is_full = False
        self._write_used()

    def place(self, name: str, labels: Sequence[str] = (), count: int = 1) -> int:
        """Return where the ``count`` numbers of ``name`` with these labels are; they begin as 0.

        Where there is no room any more the numbers are kept, and shown, nowhere.
        """
        key = (name, *labels)
        found = self._places.get(key)
        if found is None:
            found = self._places[key] = self._add(key, count)
        return found

    def entries(self) -> Iterator[Entry]:
        return read(bytes(self._map[: self._used]))

    def close(self) -> None:
        self.values.release()
        self._map.close()

    def _add(self, key: tuple[str, ...], count: int) -> int:
        said = json.dumps(key).encode()
        padded = said.ljust(-(-len(said) // 8) * 8)
        size = _HEAD.size + len(padded) + 8 * count
        spill = (SIZE_BYTES - 8 * 64) // 8
        if self._used + size > spill * 8:
            self.is_full = True
            return spill
        at = self._used
        self._map[at : at + _HEAD.size] = _HEAD.pack(len(padded), count)
        self._map[at + _HEAD.size : at + _HEAD.size + len(padded)] = padded
        self._used += size
        self._write_used()  # last: whoever reads meanwhile sees whole entries
        return (at + _HEAD.size + len(padded)) // 8

    def _write_used(self) -> None:
        self._map[: _USED.size] = _USED.pack(self._used)


def read(content: bytes) -> Iterator[Entry]:
    """Yield the entries of a file as far as they are whole, whoever writes it now."""
    if len(content) < _USED.size:
        return
    used = min(_USED.unpack_from(content)[0], len(content))
    at = _USED.size
    while at + _HEAD.size <= used:
        name_bytes, count = _HEAD.unpack_from(content, at)
        at += _HEAD.size
        end = at + name_bytes + 8 * count
        if end > used:
            return
        try:
            name, *labels = json.loads(content[at : at + name_bytes])
        except ValueError:
            return
        yield Entry(name, tuple(labels), struct.unpack_from(f"={count}d", content, at + name_bytes))
        at = end
