"""Stream an answer with requests alone. To copy: pip install requests

python python_requests.py "What is a cursor?"
"""

import json
import os
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

import requests

URL = os.environ.get("SLUICE_URL", "http://localhost:8000")
ATTEMPTS = 8
# To connect, and between two bytes: longer than the service's heartbeats, which come every 10 seconds.
TIMEOUT = (10, 25)
CUT = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)


class Failed(Exception):
    """The service said no; ``error`` has ``message``, ``type``, ``code``, ``param``, ``retryable``…"""

    def __init__(self, error: dict[str, Any], may_pass: bool) -> None:
        super().__init__(error["message"])
        self.error = error
        self.may_pass = may_pass


def messages(blocks: Iterable[bytes]) -> Iterator[tuple[str, str]]:
    """Turn the bytes of an event stream, however they are cut, into ``(id, data)``.

    Lines of bytes, not of text: ``str.splitlines`` would also cut at U+2028. The
    service ends lines with LF and nothing else. Source: HTML Living Standard 9.2.6.
    """
    rest, last_id, data = b"", "", []
    for block in blocks:
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            name, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if name == b"data":
                data.append(value.decode())
            elif name == b"id":
                last_id = value.decode()
            elif not line and data:
                # An event counts from its blank line on: half of one is dropped, and comes again.
                yield last_id, "\n".join(data)
                data = []


def start(**fields: Any) -> str:
    """Create a run and return its id. The key makes asking again safe: it joins the same run."""
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    for attempt in range(ATTEMPTS):
        try:
            response = requests.post(f"{URL}/streams", json=fields, headers=headers, timeout=TIMEOUT)
            return check(response).json()["stream_id"]
        except (*CUT, Failed) as error:
            if attempt == ATTEMPTS - 1 or not getattr(error, "may_pass", True):
                raise
            time.sleep(min(0.25 * 2**attempt, 5))
    raise AssertionError("the last attempt returns or raises")


def follow(stream_id: str, after: str = "") -> Iterator[dict[str, Any]]:
    """Give out each event once; the last is a ``done`` or an ``error``. Opens a cut connection again."""
    failures = 0
    while True:
        query = {"format": "native", "after": after}
        try:
            with requests.get(
                f"{URL}/streams/{stream_id}", params=query, stream=True, timeout=TIMEOUT
            ) as response:
                if response.status_code == 204:
                    return  # the event at `after` was the last
                if response.status_code == 410 and after:
                    yield {"type": "reset"}  # forget the text: it comes again from the start
                    after = ""
                    continue
                # Without a size, each block is what has arrived.
                for message_id, data in messages(check(response).iter_content(chunk_size=None)):
                    event = json.loads(data)
                    if event.get("done") and "last_seq" not in event:
                        break  # not the end of the answer, only of this connection
                    failures = 0
                    yield event
                    after = message_id
                    if event.get("done"):
                        return
        except (*CUT, Failed) as error:
            if failures == ATTEMPTS or not getattr(error, "may_pass", True):
                raise
        # A connection that ends without the last event was cut, however politely.
        failures += 1
        time.sleep(min(0.25 * 2**failures, 5))


def cancel(stream_id: str) -> dict[str, Any]:
    """Stop the run for everybody, also at the model; its last event says so."""
    return check(requests.post(f"{URL}/streams/{stream_id}/cancel", timeout=TIMEOUT)).json()


def check(response: requests.Response) -> requests.Response:
    if response.ok:
        return response
    try:
        error = response.json()["error"]
    except (ValueError, LookupError, TypeError):  # a proxy's own words
        error = {"type": "bad_response", "message": f"HTTP {response.status_code}"}
    raise Failed(error, may_pass=response.status_code >= 500 or response.status_code == 429)


def main() -> int:
    stream_id = start(prompt=" ".join(sys.argv[1:]) or "hi")
    try:
        for event in follow(stream_id):
            if event["type"] == "token":
                print(event["content"], end="", flush=True)
    except KeyboardInterrupt:
        print(f"\n{cancel(stream_id)['state']}", file=sys.stderr)
        return 130
    if event["type"] == "error":
        print(f"\n{event['error']['message']}", file=sys.stderr)
    return int(event["type"] == "error")


if __name__ == "__main__":
    sys.exit(main())
