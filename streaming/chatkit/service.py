"""ChatKit's protocol without HTTP: a request goes in, JSON comes out, at once or event by event."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterator
from itertools import islice
from typing import Any

import msgspec
from chatkit.server import NonStreamingResult
from pydantic import ValidationError

from streaming import sse
from streaming.chatkit import driving
from streaming.chatkit.server import Server
from streaming.chatkit.store import ThreadsAndItems
from streaming.chatkit.visits import Visit
from streaming.errors import InvalidRequest, NotFound, StreamingError
from streaming.events import json_line
from streaming.settings import Settings
from streaming.streams import Streams

logger = logging.getLogger(__name__)

PASSED_ON = "Error while generating streamed response"

# It adds a handler of its own, in its own format, when LOG_LEVEL is set; and it writes a traceback of
# what it raises as well, also where a client asked for an item that is not there.
_logger = logging.getLogger("chatkit")
_logger.handlers.clear()
_logger.setLevel(logging.WARNING)
_logger.addFilter(lambda record: record.getMessage() != PASSED_ON)

MAX_EVENT_BYTES = 64 * 1024 * 1024
MAX_SAID_CHARS = 200
BEGINS_ANSWER = frozenset(
    {
        "threads.add_user_message",
        "threads.add_client_tool_output",
        "threads.add_structured_input",
        "threads.retry_after_item",
    }
)
"""Requests that make an answer in a thread that is there."""


class ChatKit:
    def __init__(self, streams: Streams, settings: Settings) -> None:
        self._server = Server(streams, ThreadsAndItems(streams), settings)

    def answer(self, request: dict[str, Any], visit: Visit) -> "bytes | Events":
        """Return the answer to a request: one JSON value, or events as they come.

        Blocks until the first event. Raises `InvalidRequest` with the field at
        fault, `NotFound`, and what starting a run raises.
        """
        thread_id = request["params"].get("thread_id")
        if request["type"] in BEGINS_ANSWER and isinstance(thread_id, str):
            self._server.check_free(thread_id)
        try:
            result = driving.run(self._server.process(msgspec.json.encode(request), visit))
            if isinstance(result, NonStreamingResult):
                return result.json
            return Events(result.json_events, visit)
        except ValidationError as error:
            raise _invalid(error) from None
        except ValueError:
            # An item of another kind than the request is about, or one that is not waiting any more.
            raise InvalidRequest(
                "this cannot be done with that item", code="wrong_item", param="params", status=409
            ) from None


class Events(Iterator[bytes | None]):
    """The data of each event, and ``None`` when there was nothing to say for a heartbeat's time.

    To be ended by ``finish``, also when not all of it was wanted.
    """

    def __init__(self, frames: AsyncGenerator[bytes, None], visit: Visit) -> None:
        self._frames = driving.iterate(frames)
        self._visit = visit
        # What can be refused with a status is found out before the first event.
        self._held: list[bytes | None] = [_data_of(frame) for frame in islice(self._frames, 1)]
        if not self._held:
            raise NotFound("there is no such message in this thread", param="params.item_id")

    def __next__(self) -> bytes | None:
        if self._held:
            return self._held.pop()
        try:
            return _data_of(next(self._frames))
        except asyncio.CancelledError:
            raise StopIteration from None  # the client has gone
        except StreamingError as error:
            return _failure(str(error), error.retryable)
        except StopIteration:
            raise
        except Exception:
            logger.exception("a ChatKit answer broke")
            return _failure("Something went wrong in this service.", True)

    def finish(self) -> None:
        """Let the library know that the client has gone, if it has not heard the end. Idempotent."""
        self._visit.leave()
        for _ in self:
            pass


def _data_of(frame: bytes | None) -> bytes | None:
    """Return what the library's event stream says, for our own to say it."""
    if frame is None:
        return None
    (data,) = sse.Decoder(MAX_EVENT_BYTES).feed(frame)
    return data


def _failure(message: str, allow_retry: bool) -> bytes:
    event = {"type": "error", "code": "custom", "message": message, "allow_retry": allow_retry}
    return json_line(event)


def _invalid(error: ValidationError) -> InvalidRequest:
    """Name the field that the library does not take."""
    found = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if found["type"].startswith("union_tag") and not found["loc"]:
        return InvalidRequest("type: there is no such request", code="unknown_type", param="type")
    # The first place is the kind of request.
    param = ".".join(str(place) for place in found["loc"][1:])[:MAX_SAID_CHARS]
    if found["type"] == "missing":
        return InvalidRequest(f"{param}: it is missing", code="required", param=param)
    said = found["msg"][:1].lower() + found["msg"][1:MAX_SAID_CHARS]
    if found["type"].startswith("union_tag"):
        said = "there is no such type"  # the message repeats what was sent
    return InvalidRequest(f"{param}: {said}", code="wrong_type", param=param)
