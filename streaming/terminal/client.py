"""The service's verbs, as a client uses them: start a run, follow it, look at it, cancel it."""

import random
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec

from streaming.terminal.transport import Answer, Broken, Transport, read

ATTEMPTS = 4
ASK_SECONDS = 10.0
MOST_RETRY_AFTER_SECONDS = 10.0
_STREAM_ID = re.compile(r"st_[A-Za-z0-9_-]{1,100}")


class Refused(Exception):
    """The service said no, and will say so again. ``type`` is one of its errors' types."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(str(error.get("message") or "the service refused that"))
        self.type = error.get("type")


def back_off_seconds(failures: int) -> float:
    """Return how long to wait after so many failures in a row: doubling, with jitter."""
    return min(0.25 * 2.0 ** min(failures, 10), 5.0) * random.uniform(0.5, 1.0)


class Client:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def start(self, fields: Mapping[str, Any]) -> str:
        """Create a run and return its id; asks again while the network fails, and makes one run.

        Raises `Refused`, and `Broken` when nobody answers.
        """
        body = msgspec.json.encode(fields)
        headers = {"Content-Type": "application/json", "Idempotency-Key": secrets.token_hex(16)}
        for attempt in range(1, ATTEMPTS + 1):
            try:
                # Its first bytes come when the run is in the log, which may wait for a busy store.
                status, answer, retry_after = self._ask("POST", "/streams", headers, body, 3 * ASK_SECONDS)
            except Broken:
                if attempt == ATTEMPTS:
                    raise
                retry_after = 0.0
            else:
                if status in (200, 201) and _STREAM_ID.fullmatch(str(answer.get("stream_id"))):
                    stream_id: str = answer["stream_id"]
                    return stream_id
                if attempt == ATTEMPTS or not _may_pass(status) or retry_after > MOST_RETRY_AFTER_SECONDS:
                    raise _refusal(status, answer)
            time.sleep(max(back_off_seconds(attempt), retry_after))
        raise AssertionError("the last attempt returns or raises")

    def follow(self, stream_id: str, after: str, seconds: float) -> Answer | None:
        """Return an open event stream after that cursor; `None` says that nothing comes after it.

        ``seconds`` bound the wait for its first byte. Raises `Refused` and `Broken`.
        """
        query = urlencode({"format": "native", "metrics": 1} | ({"after": after} if after else {}))
        headers = {"Accept": "text/event-stream"}
        answer = self._transport.request("GET", f"/streams/{stream_id}?{query}", headers, seconds=seconds)
        kind = answer.headers.get("content-type", "").partition(";")[0].strip()
        if answer.status == 200 and kind == "text/event-stream":
            return answer
        if answer.status == 204:
            answer.close()
            return None
        error = _refusal(answer.status, _json(read(answer, ASK_SECONDS)))
        if _may_pass(answer.status):
            raise Broken(str(error))
        raise error

    def snapshot(self, stream_id: str, after: str, wait_seconds: float = 0.0) -> dict[str, Any]:
        """Return what the stream has after that cursor, once there is something. Raises as ``follow``."""
        query = urlencode({"after": after, "wait": wait_seconds, "events": 1})
        seconds = ASK_SECONDS + wait_seconds
        status, answer, _ = self._ask("GET", f"/streams/{stream_id}?{query}", {}, b"", seconds)
        if status == 200 and isinstance(answer.get("state"), str):
            return answer
        if _may_pass(status):
            raise Broken(str(_refusal(status, answer)))
        raise _refusal(status, answer)

    def cancel(self, stream_id: str) -> str:
        """Stop the run; return what became of the upstream. Raises as ``follow``."""
        status, answer, _ = self._ask("POST", f"/streams/{stream_id}/cancel", {}, b"", ASK_SECONDS)
        if status not in (200, 202):
            raise _refusal(status, answer)
        return str(answer.get("upstream"))

    def _ask(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, seconds: float
    ) -> tuple[int, dict[str, Any], float]:
        accept = {"Accept": "application/json"}
        answer = self._transport.request(method, path, accept | dict(headers), body, seconds)
        answered = _json(read(answer, seconds))
        return answer.status, answered, _seconds(answer.headers.get("retry-after", ""))


def _json(body: bytes) -> dict[str, Any]:
    """Return the object in it; an empty one for anything else, as a proxy's page of HTML."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _may_pass(status: int) -> bool:
    """Whether the same request may succeed later: also where no service of ours answered."""
    return status >= 500 or status in (200, 201, 408, 425, 429)


def _refusal(status: int, answer: Mapping[str, Any]) -> Refused:
    error = answer.get("error")
    if isinstance(error, dict):
        return Refused(error)
    return Refused({"message": f"what answers there is not this service (HTTP {status})", "type": "strange"})


def _seconds(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0.0
