"""Examine a service through its public address, and say what to change."""

import argparse
import math
import os
import re
import sys
from collections.abc import Sequence
from urllib.parse import urlsplit

HEALTHY, FAULTS, WRONG_USE, UNREACHABLE, STOPPED = 0, 1, 2, 3, 130
MOST_SILENCE_SECONDS = 600.0

_EPILOG = """\
exit status:
  0    no faults (there may be warnings and notes)
  1    faults, or something else answers at this address
  2    this command line cannot be used
  3    nothing answers at this address
  130  stopped by Ctrl-C

It asks no model and starts no run. NO_COLOR is respected.

examples:
  python -m streaming doctor https://chat.example.org
  python -m streaming doctor https://chat.example.org --key - <key.txt
  python -m streaming doctor http://localhost:8000 --silence 5 --json | jq .findings
"""


def run(argv: Sequence[str]) -> int:
    """Examine and print. A wrong command line exits with 2."""
    given = _parse(argv)
    from streaming.doctor import telling
    from streaming.doctor.examining import Refused, examine
    from streaming.doctor.wire import Unreachable, Way

    progress = telling.Progress(sys.stderr)
    try:
        examined = examine(Way(given.url, given.key), given.silence, progress.say)
        findings, missing = examined.findings, examined.service
    except Unreachable as error:
        progress.end()
        print(f"{_shown(given.url)} cannot be reached: {error}", file=sys.stderr)
        return UNREACHABLE
    except Refused as refused:
        examined, findings, missing = None, [refused.finding], "it was not asked"
    except KeyboardInterrupt:
        return STOPPED
    finally:
        progress.end()
    if given.json:
        telling.tell_json(_shown(given.url), examined, findings, missing)
    else:
        coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        telling.tell(_shown(given.url), findings, missing, coloured)
    return FAULTS if any(finding.level == "fault" for finding in findings) else HEALTHY


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m streaming doctor",
        description="Examine a service through its public address, and say what to change.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("url", metavar="URL", help="its address, as https://chat.example.org")
    parser.add_argument("--key", default="", help="an API key; - reads it from stdin, where nobody sees it")
    parser.add_argument(
        "--silence",
        type=_silence,
        default=30.0,
        metavar="SECONDS",
        help=f"the longest silence to try, up to {MOST_SILENCE_SECONDS:g} (default: 30)",
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON, with all numbers")
    given = parser.parse_args(argv)
    given.url = given.url.rstrip("/")
    try:
        parts = urlsplit(given.url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or not re.fullmatch(r"[\x21-\x7e]+", given.url):
        parser.error("URL: an address such as https://chat.example.org")
    if given.key == "-":
        given.key = sys.stdin.readline().strip()
    if given.key and not re.fullmatch(r"[\x21-\x7e]{1,500}", given.key):
        parser.error("--key: visible ASCII characters")
    return given


def _silence(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 1 <= seconds <= MOST_SILENCE_SECONDS:
        raise argparse.ArgumentTypeError(f"a number of seconds from 1 to {MOST_SILENCE_SECONDS:g}")
    return seconds


def _shown(url: str) -> str:
    """Return the address without the password that may be in it."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
