"""Responses that are kept: any run in the log, by the id that clients of OpenAI's API have of it."""

import re
from typing import Any, NamedTuple

from streaming.errors import InvalidRequest, NotFound, StreamExpired, StreamLost
from streaming.formats.openai_responses import ResponseStream
from streaming.streams import Streams
from streaming.web import _v1_response_items as items

JSON = dict[str, Any]

_ID = re.compile(r"resp_([a-z2-7]{34})")


class Kept(NamedTuple):
    stream_id: str
    asked: JSON
    """What the run was asked, as its order said it."""

    @property
    def name(self) -> str:
        return self.stream_id.removeprefix("st_")

    def input_items(self) -> list[JSON]:
        """Return what the response was made from, oldest first; of another dialect's run the question."""
        found = self.asked.get("input")
        if isinstance(found, list):
            return found
        question = {"role": "user", "content": str(self.asked.get("prompt", ""))}
        return [items.kept({**question, "id": f"msg_{self.name}_in"})]


def find(streams: Streams, response_id: str) -> Kept:
    """Return the response with this id. Raises `NotFound`, also for one that was not to be stored."""
    match = _ID.fullmatch(response_id)
    if match is None:
        raise _not_found(response_id)
    stream_id = f"st_{match[1]}"
    try:
        asked = streams.asked(stream_id)
    except (NotFound, StreamExpired, StreamLost) as error:
        raise _not_found(response_id, f": {error}") from None
    if asked.get("response", {}).get("store") is False:
        raise _not_found(response_id)
    return Kept(stream_id, asked)


def read(streams: Streams, kept: Kept) -> JSON:
    """Return the response as it is now. Raises `NotFound`."""
    stream = ResponseStream(kept.asked)
    try:
        with streams.reader(kept.stream_id) as reader:
            while records := reader.next(0):
                for record in records:
                    stream.take(record)
    except (NotFound, StreamExpired) as error:
        raise _not_found(f"resp_{kept.name}", f": {error}") from None
    return stream.response()


def earlier_turns(streams: Streams, response_id: str) -> list[JSON]:
    """Return the items of the turns up to and with this response. Raises `InvalidRequest`."""
    try:
        kept = find(streams, response_id)
        response = read(streams, kept)
    except NotFound as error:
        raise _unusable(str(error), "previous_response_not_found") from None
    if "input" not in kept.asked:
        # The log has only its last question, which is not what the model was told.
        raise _unusable(
            f"the response {response_id!r} was not made by POST /v1/responses", "previous_response_not_found"
        )
    if response["status"] == "in_progress":
        raise InvalidRequest(
            f"the response {response_id!r} is still in progress: wait for its end, or cancel it",
            code="previous_response_in_progress",
            param="previous_response_id",
            status=409,
        )
    return [*kept.input_items(), *(item for item in response["output"] if isinstance(item, dict))]


def _unusable(message: str, code: str) -> InvalidRequest:
    return InvalidRequest(message, code=code, param="previous_response_id")


def _not_found(response_id: str, why: str = "") -> NotFound:
    return NotFound(f"there is no response {response_id[:60]!r}{why}", code="response_not_found")
