"""What people and programs see: the answer on stdout, everything about it on stderr."""

import os
import stat
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import TextIO

from streaming.terminal.escaping import visible
from streaming.terminal.progress import Progress

MOST_NOTE_CHARACTERS = 400
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


class OutputClosed(Exception):
    """Nobody reads the answer any more, as after ``| head -1``."""


class Screen:
    """Keeps apart what comes in turns: whole lines of notes, and text that may end inside a line."""

    def __init__(self, out: TextIO, err: TextIO, environ: Mapping[str, str]) -> None:
        self._out = out
        self._err = err
        dumb = environ.get("TERM", "") in ("", "dumb")
        self._out_is_terminal = out.isatty()
        err_is_terminal = err.isatty()
        self._shared = self._out_is_terminal and err_is_terminal and _same(out, err)
        self._dim = err_is_terminal and not dumb and not environ.get("NO_COLOR")
        self._progress = Progress(err, self._shared) if err_is_terminal and not dumb else None
        self._is_piped = not self._out_is_terminal and not _is_file(out)
        self._out_open = False
        """The answer stands inside a line of the terminal."""
        self._err_open = False
        """So does the reasoning."""
        for stream in (out, err):
            if reconfigure := getattr(stream, "reconfigure", None):
                reconfigure(errors="replace")

    def text(self, text: str) -> None:
        """Print a part of the answer. Raises `OutputClosed`."""
        if not text:
            return
        self._end_reasoning()
        self._print(visible(text) if self._out_is_terminal else text)
        self._out_open = self._out_is_terminal and not text.endswith("\n")

    def line(self, payload: str) -> None:
        """Print one line for a program. Raises `OutputClosed`."""
        self._print(payload + "\n")

    def reasoning(self, text: str) -> None:
        if text:
            if not self._err_open:
                self._begin_note()
            self._say(self._dimmed(visible(text)))
            self._err_open = not text.endswith("\n")

    def note(self, text: str) -> None:
        """Say something about the run on a line of its own, in the order of the answer."""
        self._end_reasoning()
        self._begin_note()
        self._say(self._dimmed(_one_line(text)) + "\n")

    def error(self, text: str) -> None:
        """Say why there is no answer, or not all of it."""
        self._end_reasoning()
        self._begin_note()
        self._say(f"Error: {_one_line(text)}\n")

    def progress(self, text: str, at_once: bool = False) -> None:
        if self._progress and not (self._err_open and not self._shared):
            with suppress(OSError, ValueError):
                self._progress.show(visible(text), at_once)

    def end(self) -> None:
        """End the line the answer stands in, and leave the terminal as it was found."""
        self._end_reasoning()
        with suppress(OutputClosed):
            if self._out_open:
                self._print("\n")
        self._out_open = False
        self.restore()

    def restore(self) -> None:
        """Leave the terminal as it was found, whatever is being done with it now."""
        if self._progress:
            with suppress(OSError, ValueError, RuntimeError):
                self._progress.end()

    def _begin_note(self) -> None:
        if self._progress:
            with suppress(OSError, ValueError):
                self._progress.clear()
        if self._shared and self._out_open:
            self._say("\n")
            self._out_open = False

    def _end_reasoning(self) -> None:
        if self._err_open:
            self._say("\n")
            self._err_open = False

    def _dimmed(self, text: str) -> str:
        return f"{_DIM}{text}{_PLAIN}" if self._dim else text

    def _print(self, text: str) -> None:
        if self._is_piped:
            # What is behind the pipe may print to the same terminal, from now on.
            self.restore()
            self._progress = None
        try:
            self._out.write(text)
            self._out.flush()
        except (OSError, ValueError) as error:
            # What is left in the buffer must not fail once more when the interpreter ends.
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._out.fileno())
            raise OutputClosed from error

    def _say(self, text: str) -> None:
        # Without a stderr the answer is still worth printing.
        with suppress(OSError, ValueError):
            self._err.write(text)
            self._err.flush()


def _one_line(text: str) -> str:
    text = " ".join(text.split())
    if len(text) > MOST_NOTE_CHARACTERS:
        text = text[: MOST_NOTE_CHARACTERS - 1] + "…"
    return visible(text)


def standard() -> Screen:
    """Return the screen of this process; a stream that is closed swallows what is written to it."""
    out, err = (stream or open(os.devnull, "w") for stream in (sys.stdout, sys.stderr))  # noqa: SIM115
    return Screen(out, err, os.environ)


def _is_file(out: TextIO) -> bool:
    try:
        return stat.S_ISREG(os.fstat(out.fileno()).st_mode)
    except (OSError, ValueError):
        return False


def _same(out: TextIO, err: TextIO) -> bool:
    try:
        return os.fstat(out.fileno()).st_rdev == os.fstat(err.fileno()).st_rdev
    except (OSError, ValueError):
        return False
