"""No key and no prompt in any log: what the services of a test run were told, and a search for it.

Each service's log is watched from its start. What clients said to it, and every
key, is remembered; when the run is over all logs are searched, a hit fails it.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, quote_plus

LEAST_CHARS = 12
"""Shorter texts, such as "hello", stand in logs for other reasons."""
MOST_CHARS = 60
SPOKEN = frozenset({"prompt", "content", "text", "input", "instructions", "question"})
_KEYS = re.compile(r"\bsk-[A-Za-z0-9_-]{6,}|\bBearer +(?!\[)[A-Za-z0-9._~+/-]{8,}")
# What the tests' upstreams are told to play stands in the prompts between these.
_SCRIPTS = re.compile(r"<<\s*\{|%3C%3C%7B", re.IGNORECASE)


class Hit(NamedTuple):
    file: Path
    line: int
    what: str
    text: str


class LogScan:
    """The logs of one process's services, and what must not be in them."""

    def __init__(self) -> None:
        self._files: list[Path] = []
        self._said: set[str] = set()

    def watch(self, file: Path) -> None:
        self._files.append(file)

    def said(self, body: Any) -> None:
        """Remember what a client's request says to a model."""
        for text in _spoken(body):
            text = text.strip()[:MOST_CHARS].strip()
            if len(text) >= LEAST_CHARS:
                self._said |= set(_written(text))

    def hits(self) -> list[Hit]:
        """Search all logs. A log that is gone counts as a hit: nobody knows what was in it."""
        found = []
        for file in self._files:
            if not file.exists():
                found.append(Hit(file, 0, "the log is gone", ""))
                continue
            with file.open(errors="replace") as lines:
                found += [
                    Hit(file, place, *hit) for place, line in enumerate(lines, 1) if (hit := self._in(line))
                ]
        return found

    def _in(self, line: str) -> tuple[str, str] | None:
        if key := _KEYS.search(line):
            return "a key", f"…{line[max(0, key.start() - 60) : key.start() + 6]}…"
        if _SCRIPTS.search(line):
            return "a prompt", line[:200]
        if any(text in line for text in self._said):
            return "a prompt", line[:200]
        return None


SCAN = LogScan()
"""Of this process; with several, each searches the logs of its own services."""


def report(hits: list[Hit]) -> str:
    lines = [f"{hit.file}:{hit.line}: {hit.what}: {hit.text}" for hit in hits[:20]]
    return "\n".join([f"{len(hits)} lines of logs hold what no log may", *lines])


def _spoken(value: Any, is_said: bool = False) -> Iterator[str]:
    if isinstance(value, str) and is_said:
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _spoken(inner, is_said or name in SPOKEN)
    elif isinstance(value, list):
        for inner in value:
            yield from _spoken(inner, is_said)


def _written(text: str) -> Iterator[str]:
    """Return the ways in which a log may write a text."""
    yield from (text, json.dumps(text)[1:-1], repr(text)[1:-1], quote(text), quote_plus(text))
