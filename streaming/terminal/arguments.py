"""The command line: what may be asked for, and in which words it is explained."""

import argparse
import base64
import math
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

DONE, FAILED, WRONG_USE, UNREACHABLE, STOPPED = 0, 1, 2, 3, 130
MAX_IMAGE_BYTES = 10 * 1024 * 1024

_EPILOG = """\
exit status:
  0    the model finished
  1    the run failed, was refused, or its answer did not arrive whole
  2    this command line cannot be used
  3    the service cannot be reached
  130  stopped: by Ctrl-C, by somebody else, or because nobody reads the output

The answer goes to stdout, everything else to stderr. Ctrl-C stops the run, also
at the model; a second one leaves at once. NO_COLOR is respected.

examples:
  python -m streaming ask "What is a cursor?"
  git diff | python -m streaming ask --instructions "Write a commit message" -
  python -m streaming ask --url http://localhost:8000 --json "hi" | jq .type
"""
# Source: the signatures of PNG, JPEG, GIF and WebP in the WHATWG's MIME Sniffing Standard, 6.1.
_IMAGES = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF....WEBPVP", re.DOTALL), "image/webp"),
)
_STREAM_ID = re.compile(r"st_[A-Za-z0-9_-]{1,100}")
_CURSOR = re.compile(r"[0-9]{1,18}\.[0-9]{1,18}")


class Asked(NamedTuple):
    """A command line that can be used."""

    url: str
    """Of a running service; empty: in this process."""
    fields: Mapping[str, Any]
    """The body of ``POST /streams``; empty where a stream is resumed."""
    resume: str
    after: str
    as_json: bool
    timeout_seconds: float | None
    patience_seconds: float


def parse(argv: Sequence[str] | None = None) -> Asked:
    """Read the command line, and stdin where it says so. Exits with 2 and a sentence about a wrong one."""
    parser = _parser()
    given = parser.parse_args(argv)
    ask: argparse.ArgumentParser = given.parser
    given.url = given.url.rstrip("/")
    if given.url:
        _check_url(ask, given.url)
    if given.resume:
        if not given.url:
            ask.error("--resume: say with --url which service has the stream")
        if given.prompt is not None:
            ask.error("--resume: a stream that is resumed has its prompt already")
        fields: dict[str, Any] = {}
    else:
        if given.after:
            ask.error("--after: only with --resume")
        fields = _fields(ask, given)
    return Asked(
        given.url, fields, given.resume or "", given.after or "", given.json, given.timeout, given.patience
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m streaming",
        description="Sluice in the terminal. To serve it instead: gunicorn wsgi:app",
        epilog="More: python -m streaming ask --help",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    ask = commands.add_parser(
        "ask",
        help="ask, and print the answer as it comes",
        description="Ask, and print the answer as it comes.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    ask.set_defaults(parser=ask)
    ask.add_argument("prompt", nargs="?", metavar="PROMPT", help="the question; - or nothing: from stdin")
    where = ask.add_argument_group("where")
    where.add_argument(
        "--url",
        default="",
        help="a running service, as http://localhost:8000; without it the run is made in this process, "
        "with the settings of the environment",
    )
    where.add_argument("--resume", type=_stream_id, metavar="STREAM", help="follow this stream")
    where.add_argument("--after", type=_cursor, metavar="CURSOR", help="only what comes after")
    what = ask.add_argument_group("what")
    what.add_argument("--source", help="chat (default), responses, or the name of a runnable")
    what.add_argument("--model", help="one the service knows")
    what.add_argument("--instructions", metavar="TEXT", help="system instructions")
    what.add_argument("--image", action="append", default=[], metavar="FILE", help="may be repeated")
    what.add_argument("--thread", metavar="ID", help="the conversation this belongs to")
    what.add_argument("--input", metavar="JSON", help="for a runnable, instead of a prompt")
    what.add_argument("--mode", action="append", metavar="MODE", help="of a graph's updates; may be repeated")
    how = ask.add_argument_group("how")
    how.add_argument("--json", action="store_true", help="print events, one a line, each with its cursor")
    how.add_argument("--timeout", type=_seconds, metavar="SECONDS", help="for the whole run")
    how.add_argument(
        "--patience",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="how long a lost service is looked for (default: 60)",
    )
    return parser


def _fields(ask: argparse.ArgumentParser, given: argparse.Namespace) -> dict[str, Any]:
    names = ("source", "model", "instructions", "thread", "mode")
    fields = {name: value for name in names if (value := getattr(given, name)) is not None}
    if given.timeout is not None:
        fields["timeout_seconds"] = given.timeout
    if given.thread is not None and not given.url and fields.get("source", "chat") in ("chat", "responses"):
        ask.error("--thread: conversations are kept by a service; say with --url by which")
    if given.input is not None:
        if given.prompt is not None or given.image:
            ask.error("--input: instead of a prompt and images, not with them")
        try:
            return {**fields, "input": msgspec.json.decode(given.input.encode())}
        except (msgspec.DecodeError, UnicodeEncodeError) as error:
            ask.error(f"--input: not JSON: {error}")
    prompt = _prompt(ask, given.prompt)
    if not given.image:
        return {**fields, "prompt": prompt}
    parts = [{"type": "text", "text": prompt}, *(_image(ask, path) for path in given.image)]
    return {**fields, "messages": [{"role": "user", "content": parts}]}


def _prompt(ask: argparse.ArgumentParser, given: str | None) -> str:
    if given is None or given == "-":
        if sys.stdin is None or (given is None and sys.stdin.isatty()):
            ask.error("a PROMPT is needed, or text on stdin")
        try:
            given = sys.stdin.buffer.read().decode()
        except UnicodeDecodeError as error:
            ask.error(f"stdin: not UTF-8 text: {error}")
        except OSError as error:
            ask.error(f"stdin: {error.strerror}")
    try:
        given.encode()
    except UnicodeEncodeError:  # the shell gave bytes that are no text in this locale
        ask.error("PROMPT: not UTF-8 text")
    if not given.strip():
        ask.error("PROMPT: it is empty")
    return given


def _image(ask: argparse.ArgumentParser, path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_IMAGE_BYTES + 1)
    except (OSError, ValueError) as error:
        ask.error(f"--image {path}: {getattr(error, 'strerror', None) or error}")
    if len(content) > MAX_IMAGE_BYTES:
        ask.error(f"--image {path}: more than {MAX_IMAGE_BYTES // 1024**2} MiB")
    media_type = next((name for signature, name in _IMAGES if signature.match(content)), None)
    if media_type is None:
        ask.error(f"--image {path}: not a PNG, JPEG, GIF or WebP image")
    url = f"data:{media_type};base64,{base64.b64encode(content).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def _check_url(ask: argparse.ArgumentParser, url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or not url.isascii() or re.search(r"[\s\x00-\x1f]", url):
        ask.error("--url: an address such as http://localhost:8000")


def _stream_id(text: str) -> str:
    if not _STREAM_ID.fullmatch(text):
        raise argparse.ArgumentTypeError("a stream's id begins with st_")
    return text


def _cursor(text: str) -> str:
    if not _CURSOR.fullmatch(text):
        raise argparse.ArgumentTypeError("a cursor looks like 1.42")
    return text


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < 1e6:
        raise argparse.ArgumentTypeError("a number of seconds above 0")
    return seconds
