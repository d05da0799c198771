"""Ask a service whether it is alive; for a container's health check, where there is no curl."""

import argparse
import http.client
import os
import sys
from collections.abc import Sequence
from urllib.parse import urlsplit

HEALTHY, UNHEALTHY = 0, 1
# Of its answer, for the one line that says what it was.
_SHOWN_BYTES = 300


def run(argv: Sequence[str]) -> int:
    """Return 0 if it answers 200. A wrong command line exits with 2."""
    parser = argparse.ArgumentParser(
        prog="python -m streaming healthcheck",
        description="Ask a service whether it is alive (/healthz) or can take work (/readyz).",
        epilog="exit status: 0 it answered 200, 1 it did not, 2 a wrong command line",
    )
    port = os.environ.get("PORT", "").strip() or "8000"
    parser.add_argument("url", nargs="?", default=f"http://127.0.0.1:{port}", help="default: %(default)s")
    parser.add_argument("--ready", action="store_true", help="ask whether it can take work")
    parser.add_argument("--timeout-seconds", type=float, default=4.0, help="default: %(default)s")
    asked = parser.parse_args(argv)
    try:
        parts = urlsplit(asked.url)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        known = False
    if not known:
        parser.error(f"url: {asked.url!r} is not a URL such as http://127.0.0.1:8000")
    if asked.timeout_seconds <= 0:
        parser.error("--timeout-seconds: it is not above 0")
    return _ask(asked.url.rstrip("/") + ("/readyz" if asked.ready else "/healthz"), asked.timeout_seconds)


def _ask(url: str, timeout_seconds: float) -> int:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    # No variable of the environment leads it through a proxy, as urllib's would.
    connection = kind(str(parts.hostname), parts.port, timeout=timeout_seconds)
    try:
        connection.request("GET", parts.path, headers={"Connection": "close"})
        answer = connection.getresponse()
        said = answer.read(_SHOWN_BYTES).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        print(f"{url}: {type(error).__name__} {str(error)!r}"[:_SHOWN_BYTES], file=sys.stderr)
        return UNHEALTHY
    finally:
        connection.close()
    print(f"{url}: {answer.status} {said!r}", file=sys.stdout if answer.status == 200 else sys.stderr)
    return HEALTHY if answer.status == 200 else UNHEALTHY
