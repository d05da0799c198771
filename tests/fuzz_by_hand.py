"""The fuzz tests' own checks, tried by the ten thousand: ``python -m tests.fuzz_by_hand 50000``.

Hypothesis takes milliseconds to think of a case. Here plain chance makes the
arguments, of the same strategies, and a case costs what the check costs. A case
that fails is printed, to be made a test of. A part of a test's name, or of its
file's, tries only those; a number after it begins elsewhere. Ctrl-C goes on to the next.
"""

from tests import _patched  # noqa: F401, I001  (be what a worker is, before anything else is imported)

import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests import fuzz_places
from tests.chance import Chance, case_of, checks

os.environ.setdefault("DEMO_TOKENS_PER_SECOND", "0")
MOST_SHOWN_CHARS = 4000
_stopped = threading.Event()


class _Scratch:
    """What a check needs of pytest's ``tmp_path_factory``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def getbasetemp(self) -> Path:
        return self._path


@contextmanager
def _scratch() -> Iterator[_Scratch]:
    with tempfile.TemporaryDirectory() as path:
        yield _Scratch(Path(path))


fuzz_places.PLACES["tmp_path_factory"] = _scratch


def main(cases: int, only: str = "", seed: int = 0) -> int:
    """Try each check so often; return how many failed."""
    failed = 0
    with ExitStack() as stack:
        places = _Opened(stack)
        for test in checks():
            if only in f"{test.__module__}::{test.__name__}":
                failed += not _try(test, cases, Chance(seed), places)
    return failed


def _try(test: Any, cases: int, chance: Chance, places: dict[str, Any]) -> bool:
    check, make = test.hypothesis.inner_test, case_of(test, chance, places)
    began = time.monotonic()
    well = True
    number = 0
    _stopped.clear()
    while well and number < cases and not _stopped.is_set():
        try:
            given = make()
            number += 1
            check(**given)
        except Exception:
            well = False
            print(f"FAILED in case {number} with {repr(given)[:MOST_SHOWN_CHARS]}")
            traceback.print_exc(limit=-4)
    print(f"{number:7} cases {time.monotonic() - began:6.0f} s  {test.__name__}", flush=True)
    return well


class _Opened(dict[str, Any]):
    """The places that were needed so far."""

    def __init__(self, stack: ExitStack) -> None:
        super().__init__()
        self._stack = stack

    def __missing__(self, name: str) -> Any:
        self[name] = found = self._stack.enter_context(fuzz_places.PLACES[name]())
        return found


if __name__ == "__main__":
    # Between two cases: what a check asks may take an exception in its midst for a fault of its own.
    signal.signal(signal.SIGINT, lambda *_: _stopped.set())
    sys.exit(main(int(sys.argv[1]), sys.argv[2] if sys.argv[2:] else "", int((sys.argv[3:] or ["0"])[0])) > 0)
