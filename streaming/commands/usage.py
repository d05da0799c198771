"""Show what was used on which day, by whom, of which model."""

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streaming.accounts import Sum

DIMENSIONS = ("day", "principal", "model")
HEADS = ("runs", "failed", "tokens in", "tokens out", "MB", "cost")


def run(argv: Sequence[str]) -> int:
    """Print the accounts beside the event log of ``EVENTLOG_URL``. A wrong command line exits with 2."""
    asked = _parse(argv)
    # Before anything that opens a socket is imported.
    from gevent import monkey

    monkey.patch_all()
    import msgspec

    from streaming import plugins
    from streaming.accounts import shown, summed
    from streaming.errors import StreamingError
    from streaming.settings import Settings
    from streaming.spending import today

    try:
        settings = Settings.from_environ(os.environ)
        scheme = settings.eventlog_url.partition(":")[0].replace("rediss", "redis")
        if scheme == "memory":
            raise SystemExit("accounts in memory:// are those of a worker, which tells them at /usage only")
        path = settings.eventlog_url.removeprefix("sqlite:///")
        if scheme == "sqlite" and not os.path.exists(path):
            raise SystemExit(f"there is no {path}: EVENTLOG_URL names the file that the service uses")
        log = plugins.create("eventlogs", scheme, settings.eventlog_url, settings.sqlite_synchronous)
        try:
            last = asked.to or date.fromisoformat(today())
            first = asked.first or last - timedelta(days=29)
            accounts = plugins.create("accounts", scheme, log)
            rows = accounts.rows(first.isoformat(), last.isoformat(), asked.principal, asked.by)
        finally:
            log.close()
    except StreamingError as error:
        print(error, file=sys.stderr)
        return 1
    found = [shown(row, asked.by) for row in rows]
    total = [shown(row, ()) for row in summed(rows, ())]
    if asked.json:
        print(msgspec.json.encode({"data": found, "total": total[0] if total else None}).decode())
    else:
        _print([*found, *total], asked.by)
    return 0


def _print(sums: Sequence["Sum"], by: Sequence[str]) -> None:
    lines = [(*by, *HEADS)]
    for each in sums:
        places = [str(value) if (value := getattr(each, name)) else "total" for name in by]
        ended = each.runs.completed + each.runs.cancelled + each.runs.failed + each.runs.interrupted
        about = "~" if each.estimated_runs else ""
        lines.append(
            (
                *places,
                str(ended),
                str(each.runs.failed + each.runs.interrupted),
                f"{about}{each.tokens_in}",
                f"{about}{each.tokens_out}",
                f"{each.bytes / 1e6:.1f}",
                f"{each.cost:.6f}" if isinstance(each.cost, float) else "-",
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = zip(line, widths, range(len(line)), strict=True)
        said = [cell.ljust(width) if at < len(by) else cell.rjust(width) for cell, width, at in cells]
        print("  ".join(said).rstrip())


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m streaming usage", description=__doc__)
    parser.add_argument(
        "--from", dest="first", type=date.fromisoformat, metavar="DAY", help="such as 2026-11-01"
    )
    parser.add_argument("--to", type=date.fromisoformat, metavar="DAY", help="today, if not given")
    parser.add_argument("--by", type=_by, default=("day", "principal", "model"), help="day,principal,model")
    parser.add_argument("--principal", help="one only, such as key_1a2b3c4d")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(argv)


def _by(text: str) -> tuple[str, ...]:
    asked = text.split(",")
    by = tuple(name for name in DIMENSIONS if name in asked)
    if len(by) != len(asked):
        raise argparse.ArgumentTypeError(f"some of {', '.join(DIMENSIONS)}, each once")
    return by
