"""Stream an answer with httpx and httpx-sse. To copy: pip install httpx httpx-sse

python python_httpx.py "What is a cursor?"
"""

import json
import os
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
from httpx_sse import SSEError, connect_sse

ATTEMPTS = 8


class Failed(Exception):
    """The service said no; ``error`` has ``message``, ``type``, ``code``, ``param``, ``retryable``…"""

    def __init__(self, error: dict[str, Any], may_pass: bool) -> None:
        super().__init__(error["message"])
        self.error = error
        self.may_pass = may_pass


def start(service: httpx.Client, **fields: Any) -> str:
    """Create a run and return its id. The key makes asking again safe: it joins the same run."""
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    for attempt in range(ATTEMPTS):
        try:
            response = service.post("/streams", json=fields, headers=headers)
            return check(response).json()["stream_id"]
        except (httpx.TransportError, Failed) as error:
            if attempt == ATTEMPTS - 1 or not getattr(error, "may_pass", True):
                raise
            time.sleep(min(0.25 * 2**attempt, 5))
    raise AssertionError("the last attempt returns or raises")


def follow(service: httpx.Client, stream_id: str, after: str = "") -> Iterator[dict[str, Any]]:
    """Give out each event once; the last is a ``done`` or an ``error``. Opens a cut connection again."""
    failures = 0
    while True:
        try:
            with connect_sse(
                service, "GET", f"/streams/{stream_id}", params={"format": "native", "after": after}
            ) as source:
                if source.response.status_code == 204:
                    return  # the event at `after` was the last
                if source.response.status_code == 410 and after:
                    yield {"type": "reset"}  # forget the text: it comes again from the start
                    after = ""
                    continue
                check(source.response)
                for message in source.iter_sse():
                    event = json.loads(message.data)
                    if event.get("done") and "last_seq" not in event:
                        break  # not the end of the answer, only of this connection
                    failures = 0
                    yield event
                    after = message.id
                    if event.get("done"):
                        return
        except (httpx.TransportError, SSEError, Failed) as error:
            if failures == ATTEMPTS or not getattr(error, "may_pass", True):
                raise
        # A connection that ends without the last event was cut, however politely.
        failures += 1
        time.sleep(min(0.25 * 2**failures, 5))


def cancel(service: httpx.Client, stream_id: str) -> dict[str, Any]:
    """Stop the run for everybody, also at the model; its last event says so."""
    return check(service.post(f"/streams/{stream_id}/cancel")).json()


def check(response: httpx.Response) -> httpx.Response:
    if response.is_success:
        return response
    response.read()
    try:
        error = response.json()["error"]
    except (ValueError, LookupError, TypeError):  # a proxy's own words
        error = {"type": "bad_response", "message": f"HTTP {response.status_code}"}
    raise Failed(error, may_pass=response.status_code >= 500 or response.status_code == 429)


def main() -> int:
    url = os.environ.get("SLUICE_URL", "http://localhost:8000")
    # Longer than the service's heartbeats, which come every 10 seconds.
    with httpx.Client(base_url=url, timeout=httpx.Timeout(10, read=25)) as service:
        stream_id = start(service, prompt=" ".join(sys.argv[1:]) or "hi")
        try:
            for event in follow(service, stream_id):
                if event["type"] == "token":
                    print(event["content"], end="", flush=True)
        except KeyboardInterrupt:
            print(f"\n{cancel(service, stream_id)['state']}", file=sys.stderr)
            return 130
        if event["type"] == "error":
            print(f"\n{event['error']['message']}", file=sys.stderr)
        return int(event["type"] == "error")


if __name__ == "__main__":
    sys.exit(main())
