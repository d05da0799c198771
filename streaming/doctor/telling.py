"""Print what was found: the worst first, each with what to change."""

import json
import shutil
import sys
import textwrap
from typing import TextIO

import msgspec

from streaming.doctor.examining import Examined
from streaming.doctor.findings import LEVELS, Finding, Level
from streaming.terminal.escaping import json_line, visible

_COLOURS: dict[Level, str] = {"fault": "31;1", "warning": "33;1", "note": "36", "ok": "32"}
_WIDEST = 100
_INDENT = " " * 10


class Progress:
    """One line that says what is being done, on a terminal; without one, nothing."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shows = stream.isatty()

    def say(self, text: str) -> None:
        if self._shows:
            self._stream.write(f"\r\x1b[2K  … {text}")
            self._stream.flush()

    def end(self) -> None:
        if self._shows:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()


def tell(url: str, findings: list[Finding], missing: str, coloured: bool, out: TextIO = sys.stdout) -> None:
    """Print a report for people."""
    width = min(_WIDEST, shutil.get_terminal_size((_WIDEST, 24)).columns)
    print(f"{visible(url)}\n", file=out)
    for finding in findings:
        _tell_one(finding, width, coloured, out)
    if missing:
        print(f"  {'':<7} What the service knows of itself is missing: {visible(missing)}\n", file=out)
    print(summary(findings), file=out)


def tell_json(url: str, examined: Examined | None, findings: list[Finding], missing: str) -> None:
    """Print one line of JSON, for programs."""
    report = {
        "url": url,
        "healthy": not any(finding.level == "fault" for finding in findings),
        "findings": msgspec.to_builtins(findings),
        "measured": msgspec.to_builtins(examined.measured) if examined else None,
        "service_missing": missing or None,
    }
    print(json_line(json.loads(json.dumps(report))))


def summary(findings: list[Finding]) -> str:
    """Return how many of each there are.

    >>> summary([Finding("ok", "a", "A", "1"), Finding("fault", "b", "B", "2")])
    '1 fault, 1 ok'
    """
    counts = [(level, sum(finding.level == level for finding in findings)) for level in LEVELS]
    plural = {"fault": "faults", "warning": "warnings", "note": "notes", "ok": "ok"}
    return ", ".join(f"{count} {level if count == 1 else plural[level]}" for level, count in counts if count)


def _tell_one(finding: Finding, width: int, coloured: bool, out: TextIO) -> None:
    label = f"{finding.level:<7}"
    if coloured:
        label = f"\x1b[{_COLOURS[finding.level]}m{label}\x1b[0m"
    if finding.level == "ok":
        print(f"  {label} {visible(finding.title)} ({visible(finding.measured)})", file=out)
        return
    print(f"  {label} {visible(finding.title)}", file=out)
    for text in (finding.measured, finding.why):
        if text:
            print(
                textwrap.fill(visible(text), width, initial_indent=_INDENT, subsequent_indent=_INDENT),
                file=out,
            )
    for change in finding.changes:
        said = f"{visible(change.where)}: {visible(change.setting)}"
        hanging = _INDENT + "  "
        print(
            textwrap.fill(said, width, initial_indent=f"{_INDENT}→ ", subsequent_indent=hanging),
            file=out,
        )
    print(file=out)
