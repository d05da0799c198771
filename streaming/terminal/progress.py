"""A line that says how far the answer is, kept out of the answer's way.

Where the answer goes to the same terminal, the line has the lowest row for
itself: the rest of the screen scrolls above it, and the cursor is put back where
it was, with whatever the terminal remembers besides. Elsewhere it is written
over and over at the beginning of its row.

Source of the sequences: ECMA-48, and the manual of the VT510 for DECSTBM
(scrolling region), DECSC and DECRC (remember, and put back).
"""

import os
import time
from typing import TextIO

EVERY_SECONDS = 0.1
LEAST_ROWS = 5
_ERASE_LINE = "\x1b[2K"
_REMEMBER, _PUT_BACK = "\x1b7", "\x1b8"


class Progress:
    """Writes to ``stream``, which is a terminal; ``shared`` says that the answer is on it too."""

    def __init__(self, stream: TextIO, shared: bool) -> None:
        self._stream = stream
        self._shared = shared
        self._rows = 0
        self._shown = ""
        self._next_at = 0.0

    def show(self, text: str, at_once: bool = False) -> None:
        """Say ``text``, one line of it; not more often than is of use, unless ``at_once``."""
        if text == self._shown or (time.monotonic() < self._next_at and not at_once):
            return
        columns, rows = self._size()
        if self._shared and rows < LEAST_ROWS:
            return
        self._next_at = time.monotonic() + EVERY_SECONDS
        self._shown = text
        text = text[: columns - 1]
        if not self._shared:
            self._write(f"\r{_ERASE_LINE}{text}")
            return
        if rows != self._rows:
            self._reserve(rows)
        self._write(f"{_REMEMBER}\x1b[{rows};1H{_ERASE_LINE}{text}{_PUT_BACK}")

    def clear(self) -> None:
        """Take the line away, so that something else can be written to the terminal."""
        if self._shown and not self._shared:
            self._write(f"\r{_ERASE_LINE}")
        self._shown = ""

    def end(self) -> None:
        """Leave the terminal as it was. May be called from anywhere, and twice."""
        self.clear()
        if self._rows:
            self._write(f"{_REMEMBER}\x1b[{self._rows};1H{_ERASE_LINE}\x1b[r{_PUT_BACK}")
            self._rows = 0

    def _reserve(self, rows: int) -> None:
        # The line feed makes room in case the cursor stands in the lowest row. Only the first time is
        # the cursor known to be at the beginning of a line.
        room = ("\n", "\x1b[A") if not self._rows else ("", "")
        self._write(f"{room[0]}{_REMEMBER}\x1b[1;{rows - 1}r{_PUT_BACK}{room[1]}")
        self._rows = rows

    def _size(self) -> tuple[int, int]:
        try:
            size = os.get_terminal_size(self._stream.fileno())
        except OSError:
            return 80, 0
        return size.columns or 80, size.lines

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
