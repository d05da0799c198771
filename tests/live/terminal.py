"""Programs for a terminal as processes, with pipes or in a terminal of their own."""

import contextlib
import fcntl
import os
import pty
import re
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tests.live.service import REPOSITORY, wait_until

ROWS, COLUMNS = 24, 80
RUN_SECONDS = 60.0
# Nothing of the machine's own settings: a key in the environment would be used.
PLAIN = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LANG": "C.UTF-8", "RUNNABLES": "none"}


class Printed(NamedTuple):
    """How a program ended."""

    status: int
    out: str
    err: str


class Program:
    """``python -m streaming <arguments>``, or another command, running; stdout and stderr are pipes."""

    def __init__(
        self,
        arguments: Sequence[str],
        stdin: bytes | None = None,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] = (sys.executable, "-m", "streaming"),
    ) -> None:
        self._stdin = stdin
        self._process = subprocess.Popen(
            [*command, *arguments],
            cwd=REPOSITORY,
            env={**PLAIN, **(environment or {})},
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def read_until(self, text: str, seconds: float = 20.0) -> str:
        """Return what came on stdout, once ``text`` is in it; not to be mixed with ``wait``."""
        assert self._process.stdout
        descriptor = self._process.stdout.fileno()
        came = b""

        def is_there() -> bool:
            nonlocal came
            if select.select([descriptor], [], [], 0)[0]:
                came += os.read(descriptor, 65536)
            return text.encode() in came

        wait_until(is_there, seconds, f"{text!r} is printed")
        return came.decode()

    def close_stdout(self) -> None:
        assert self._process.stdout
        self._process.stdout.close()

    def interrupt(self) -> None:
        """What a terminal does at Ctrl-C: it tells all of the group."""
        os.killpg(self._process.pid, signal.SIGINT)

    def wait(self, seconds: float = RUN_SECONDS) -> Printed:
        """Return how it ended, and what was not read yet."""
        if self._process.stdout and self._process.stdout.closed:
            status = self._process.wait(timeout=seconds)
            assert self._process.stderr
            with self._process.stderr as stderr:
                return Printed(status, "", stderr.read().decode())
        out, err = self._process.communicate(self._stdin, timeout=seconds)
        return Printed(self._process.returncode, out.decode(), err.decode())

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=10)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe and not pipe.closed:
                pipe.close()


class InTerminal:
    """The same in a terminal, which it has for itself; ``screen`` is what a person sees."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str] | None = None,
        above: int = 0,
        then: str = "",
    ) -> None:
        """``above`` lines are there before; ``then`` says where stdout goes, such as ``| cat``."""
        self.screen = Screen(ROWS, COLUMNS)
        self.screen.feed("$\n" * above)
        self.raw = ""
        self.status: int | None = None
        pid, self._descriptor = pty.fork()
        if pid == 0:  # pragma: no cover
            os.chdir(REPOSITORY)
            variables = {**PLAIN, "TERM": "xterm", **(environment or {})}
            command = shlex.join([sys.executable, "-m", "streaming", *arguments])
            os.execvpe("sh", ["sh", "-c", f"{command} {then}" if then else f"exec {command}"], variables)
        self._pid = pid
        fcntl.ioctl(self._descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))

    def press(self, keys: str) -> None:
        os.write(self._descriptor, keys.encode())

    def see(self, text: str, seconds: float = 20.0) -> None:
        """Wait until ``text`` is on the screen."""
        wait_until(
            lambda: self._look() and text in "\n".join(self.screen.lines), seconds, f"{text!r} is seen"
        )

    def wait(self, seconds: float = RUN_SECONDS) -> int:
        """Return the exit status."""
        wait_until(lambda: not self._look(), seconds, "the program has ended")
        _, status = os.waitpid(self._pid, 0)
        self.status = os.waitstatus_to_exitcode(status)
        return self.status

    def kill(self) -> None:
        if self.status is None:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)
        os.close(self._descriptor)

    def _look(self) -> bool:
        """Take in what was written; say whether there may be more."""
        while select.select([self._descriptor], [], [], 0)[0]:
            try:
                block = os.read(self._descriptor, 65536)
            except OSError:  # the other end is closed
                return False
            if not block:
                return False
            text = block.decode("utf-8", "replace")
            self.raw += text
            self.screen.feed(text)
        return True


class Screen:
    """What a terminal makes of the few sequences that are used here; anything else fails.

    Source: ECMA-48; the manual of the VT510 for DECSTBM, DECSC and DECRC, which
    also keep whether the cursor waits behind the last column.
    """

    _PART = re.compile(r"\x1b\[([0-9;]*)([A-Za-z])|\x1b[78]|[^\x1b]", re.DOTALL)

    def __init__(self, rows: int, columns: int) -> None:
        self._rows, self._columns = rows, columns
        self._cells = [[" "] * columns for _ in range(rows)]
        self._above: list[str] = []
        self._row = self._column = 0
        self._waits = False
        self._top, self._bottom = 0, rows - 1
        self._kept = (0, 0, False)
        self._rest = ""
        self.dimmed = ""
        self._is_dim = False

    @property
    def lines(self) -> list[str]:
        """All that was ever there, without what was overwritten."""
        return [*self._above, *("".join(cells).rstrip() for cells in self._cells)]

    @property
    def text(self) -> str:
        """The lines, without empty ones at the end."""
        return "\n".join(self.lines).rstrip()

    @property
    def is_as_found(self) -> bool:
        """Whether the whole screen scrolls, and text is not dim."""
        return (self._top, self._bottom) == (0, self._rows - 1) and not self._is_dim

    def feed(self, text: str) -> None:
        text = self._rest + text
        at = 0
        while at < len(text) and (part := self._PART.match(text, at)):
            self._do(part)
            at = part.end()
        self._rest = text[at:]
        assert len(self._rest) < 20, f"a sequence that is not known here: {self._rest[:20]!r}"

    def _do(self, part: re.Match[str]) -> None:
        numbers, command = part.groups()
        values = [int(number) for number in (numbers or "").split(";") if number]
        match command or part[0]:
            case "\x1b7":
                self._kept = (self._row, self._column, self._waits)
            case "\x1b8":
                self._row, self._column, self._waits = self._kept
            case "H" if command:
                self._row, self._column, self._waits = values[0] - 1, values[1] - 1, False
            case "A" if command:
                self._row, self._waits = max(self._row - 1, self._top), False
            case "K" if command and values == [2]:
                self._cells[self._row] = [" "] * self._columns
            case "r" if command:
                top, bottom = values or (1, self._rows)
                self._top, self._bottom, self._row, self._column = top - 1, bottom - 1, 0, 0
            case "m" if command:
                self._is_dim = values == [2]
            case "\n":
                self._next_line()
            case "\r":
                self._column, self._waits = 0, False
            case "\t":
                self._column = min(self._column // 8 * 8 + 8, self._columns - 1)
            case char if not command and char.isprintable():
                self._put(char)
            case unknown:
                raise AssertionError(f"a sequence that is not known here: {unknown!r} {values}")

    def _put(self, char: str) -> None:
        if self._waits:
            self._column = 0
            self._next_line()
        self._cells[self._row][self._column] = char
        if self._is_dim:
            self.dimmed += char
        self._waits = self._column == self._columns - 1
        self._column += not self._waits

    def _next_line(self) -> None:
        self._waits = False
        if self._row == self._bottom:
            gone = self._cells.pop(self._top)
            if self._top == 0:
                self._above.append("".join(gone).rstrip())
            self._cells.insert(self._bottom, [" "] * self._columns)
        elif self._row < self._rows - 1:
            self._row += 1


def timed(program: Program) -> tuple[Printed, float]:
    """Return how it ended, and the seconds that took."""
    began = time.monotonic()
    return program.wait(), time.monotonic() - began
