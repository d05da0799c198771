"""Make, list, rotate and revoke the keys that clients show."""

import argparse
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from streaming.errors import SettingsError, StreamingError
from streaming.principals import SCOPES, Scope

if TYPE_CHECKING:
    from streaming.keyring import Issued, Keyring

FAILED = 1
WRONG_USE = 2
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
FAR = 9999 - 1970
"""Years: later dates cannot be shown."""


def run(argv: Sequence[str]) -> int:
    """Do one of the verbs. A key is written to stdout, once, and everything else to stderr."""
    asked = _parser().parse_args(argv)
    if asked.verb == "create" and asked.as_setting:
        return _create_for_setting(asked)
    # Before anything that opens a socket is imported.
    from gevent import monkey

    monkey.patch_all()
    try:
        with _opened() as keyring:
            match asked.verb:
                case "create":
                    issued = keyring.issue(**_wanted(asked))
                    _tell(f"made {issued.key.id}. This is shown once, and is nowhere else:")
                    _hand_out(issued)
                case "rotate":
                    issued = keyring.rotate(asked.id, asked.grace)
                    _tell(
                        f"{asked.id} is this from now on; the old one is taken for {asked.grace:.0f} s more:"
                    )
                    _hand_out(issued)
                case "revoke":
                    keyring.revoke(asked.id)
                    _tell(f"{asked.id} is revoked: within 5 s nobody is let in with it")
                case _:
                    _list(keyring)
    except StreamingError as error:
        _tell(str(error))
        return FAILED
    return 0


@contextmanager
def _opened() -> "Iterator[Keyring]":
    """Open the store that the service has, by its settings. Raises `StreamingError`."""
    import os

    from streaming import plugins
    from streaming.keyring import Keyring, read_entries
    from streaming.settings import Settings

    settings = Settings.from_environ(os.environ)
    scheme = settings.eventlog_url.partition(":")[0]
    scheme = {"rediss": "redis"}.get(scheme, scheme)
    if scheme not in plugins.names("keys"):
        raise SettingsError(f"EVENTLOG_URL: {scheme!r} is not one of {', '.join(plugins.names('keys'))}")
    if scheme == "memory":
        raise SettingsError("EVENTLOG_URL: memory:// keeps no keys; use --as-setting, and API_KEYS")
    log = plugins.create("eventlogs", scheme, settings.eventlog_url, settings.sqlite_synchronous)
    try:
        keyring = Keyring(plugins.create("keys", scheme, log), read_entries(settings.api_keys))
        try:
            yield keyring
        finally:
            keyring.close()
    finally:
        log.close()


def _create_for_setting(asked: argparse.Namespace) -> int:
    from streaming.keyring import entry_of, make

    issued = make(**_wanted(asked))
    _tell(f"made {issued.key.id}. Add this entry to API_KEYS, after a comma if there are others:")
    _tell(entry_of(issued.key))
    _tell("and this is the key. It is shown once, and is nowhere else:")
    _hand_out(issued)
    return 0


def _wanted(asked: argparse.Namespace) -> dict[str, Any]:
    return {
        "scopes": asked.scopes,
        "name": asked.name,
        "expires": asked.expires,
        "owner": f"key_{asked.shares}" if asked.shares else "",
        "limits": dict(asked.limit),
    }


def _hand_out(issued: "Issued") -> None:
    print(issued.text, flush=True)


def _list(keyring: "Keyring") -> None:
    now = time.time()
    fields = "{:<9} {:<22} {:<18} {:<11} {:<11} {}"
    print(fields.format("id", "name", "scopes", "created", "expires", "state"))
    for key in keyring.all():
        scopes = ",".join(key.scopes)
        until = _day(key.expires) if key.expires is not None else "never"
        name = key.name if key.name.isprintable() else repr(key.name)
        print(fields.format(key.id, name, scopes, _day(key.created), until, key.state(now)))


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


# The command line


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m streaming keys", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    create = verbs.add_parser("create", help="make a key, and show it once")
    create.add_argument("--name", default="", type=_name, help="for people: who has it")
    create.add_argument(
        "--scopes", default=("run",), type=_scopes, help=f"of {','.join(SCOPES)}; separated by commas; run"
    )
    create.add_argument("--expires", type=_expiry, help="90d, 12h, a date such as 2027-06-30, or never")
    create.add_argument(
        "--shares",
        type=_key_id,
        metavar="ID",
        help="has the streams and threads of this other key",
    )
    create.add_argument(
        "--limit", action="append", default=[], type=_limit, metavar="NAME=VALUE", help="may be repeated"
    )
    create.add_argument(
        "--as-setting", action="store_true", help="do not keep it: print an entry for the variable API_KEYS"
    )
    verbs.add_parser("list", help="show what keys there are, and never a key")
    rotate = verbs.add_parser("rotate", help="make a new secret for a key")
    rotate.add_argument("id", type=_key_id)
    rotate.add_argument(
        "--grace", default=86_400.0, type=_duration, help="how long the old one is taken; 24h"
    )
    revoke = verbs.add_parser("revoke", help="let nobody in with a key any more")
    revoke.add_argument("id", type=_key_id)
    return parser


def _key_id(text: str) -> str:
    text = text.removeprefix("sk-sluice-").removeprefix("key_")
    if not re.fullmatch(r"[0-9a-z]{8}", text):
        raise argparse.ArgumentTypeError("an id has 8 of a-z and 0-9; `keys list` shows them")
    return text


def _name(text: str) -> str:
    if len(text) > 100 or not text.isprintable():
        raise argparse.ArgumentTypeError("at most 100 characters that can be shown")
    return text


def _scopes(text: str) -> tuple[Scope, ...]:
    asked = [part.strip() for part in text.split(",")]
    if unknown := [part for part in asked if part not in SCOPES]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(SCOPES)}")
    return tuple(scope for scope in SCOPES if scope in asked)


def _duration(text: str) -> float:
    match = re.fullmatch(r"(\d{1,9})([smhd])|0", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90d, 12h, 30m or 0")
    return float(match[1]) * _SECONDS[match[2]] if match[1] else 0.0


def _expiry(text: str) -> float | None:
    """Return seconds since 1970, ``None`` for never."""
    if text == "never":
        return None
    try:
        at = datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    except ValueError:
        at = time.time() + _duration(text)
    if not time.time() < at < FAR * 365 * 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is not in the future")
    return at


def _limit(text: str) -> tuple[str, Any]:
    """Return a limit's name and value: a number, or a list of names."""
    from streaming.allowances import check_limits
    from streaming.errors import InvalidRequest

    name, value = _named(text)
    try:
        check_limits({name: value})
    except InvalidRequest as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return name, value


def _named(text: str) -> tuple[str, Any]:
    name, found, value = text.partition("=")
    if not found or not re.fullmatch(r"[a-z][a-z_]{0,63}", name) or not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    for number in (int, float):
        try:
            read = number(value)
        except ValueError:
            continue
        if not 0 <= read < float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r}: a number from 0 on")
        return name, read
    return name, [part.strip() for part in value.split(",") if part.strip()]
