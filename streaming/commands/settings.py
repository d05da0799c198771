"""Say which settings there are, or check the environment's."""

import argparse
import difflib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from streaming.commands._described import Described

FINE, CANNOT_START = 0, 1
# A name so like a setting's is one with a slip in it, unless it is so short that it may be anything.
_LIKENESS = 0.87
_SHORTEST = 5


def run(argv: Sequence[str]) -> int:
    """Print what is asked for. A wrong command line exits with 2."""
    parser = argparse.ArgumentParser(
        prog="python -m streaming settings",
        description="Which settings there are, and what this environment makes of them. "
        "Nothing is started, connected to or imported: whether the store answers is for /readyz to say.",
        epilog="exit status: 0 it can be used, 1 a setting cannot, 2 a wrong command line",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--markdown", action="store_true", help="docs/settings.md, for all settings there are")
    which.add_argument("--check", action="store_true", help="check the environment, show what it sets")
    asked = parser.parse_args(argv)
    from streaming.commands import _described, _settings_table

    settings = _described.described()
    try:
        if asked.markdown:
            print(_settings_table.markdown(settings), end="", flush=True)
            return FINE
        return _check(settings, os.environ, only_set=asked.check)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINE


def _check(settings: "Sequence[Described]", environ: Mapping[str, str], only_set: bool) -> int:
    """Print what would be used, secrets masked; a sentence on stderr where the service could not start."""
    from streaming.commands._described import written
    from streaming.errors import SettingsError
    from streaming.eventlogs._schemes import scheme_of
    from streaming.settings import Settings

    try:
        used = Settings.from_environ(environ)
        scheme_of(used.eventlog_url)
    except SettingsError as error:
        print(f"Sluice cannot start. {error}", file=sys.stderr)
        return CANNOT_START
    for setting in settings:
        value = written(getattr(used, setting.field))
        is_set = bool(environ.get(setting.variable, "").strip())
        if is_set or not only_set:
            shown = masked(value) if setting.is_secret else _quoted(value)
            print(f"{setting.variable}={shown}{'' if is_set else '  (default)'}")
    _say_more(used, only_set)
    for slip, name in slips({setting.variable for setting in settings}, environ):
        print(f"note: {slip} is not a setting; {name} is", file=sys.stderr)
    return FINE


def _say_more(used: Any, only_set: bool) -> None:
    if only_set:
        print("Everything else: as in docs/settings.md.")
    print(
        f"The model: {used.default_model}, {used.upstreams_shown}. The store: {used.eventlog_url_shown}",
        flush=True,
    )


def masked(value: str) -> str:
    """Return a value that may hold a secret without it: of a URL what says where it leads, else nothing.

    >>> masked("redis://:pa55@host:6379/0?password=pa55"), masked("sk-123"), masked("")
    ('redis://host:6379/0', 'set, not shown', '')
    """
    if not value:
        return ""
    try:
        parts = urlsplit(value)
    except ValueError:
        return "set, not shown"
    if not parts.scheme or "://" not in value:
        return "set, not shown"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def slips(known: set[str], environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return variables that look like a setting with a slip in it, each with that setting's name."""
    found = []
    for name in sorted(environ.keys() - known):
        if len(name) < _SHORTEST:
            continue
        near = difflib.get_close_matches(name, known, n=1, cutoff=_LIKENESS)
        if near and near[0] not in environ:
            found.append((name, near[0]))
    return found


def _quoted(text: str) -> str:
    return text if text.isprintable() and " " not in text else repr(text)
