"""One request and its answer, in each dialect: when it has begun, when it is complete, when it is cut."""

import time
from collections.abc import Callable, Iterator, Sequence

import httpx2
import pytest

from streaming.errors import UpstreamBadResponse, UpstreamTruncated
from streaming.events import Chunk, Done, Event, Status, Token
from streaming.settings import Settings
from streaming.sources import Prompt
from streaming.sources._attempts import Attempt
from streaming.sources._chat_dialect import ChatAttempt
from streaming.sources._exchange import MAX_WHOLE_ANSWER_BYTES
from streaming.sources._routes import Route, Upstream
from streaming.sources.responses import ResponseAttempt
from streaming.upstreams import UpstreamSettings
from tests.doubles import text_of

SETTINGS = Settings()
PROMPT = Prompt("m", [{"role": "user", "content": "hi"}])
ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant"}}]}\n\n'
HELLO = b'data: {"choices":[{"index":0,"delta":{"content":"hello"}}]}\n\n'
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
END = b"data: [DONE]\n\n"
RESPONSE = (
    b'data: {"type":"response.output_text.delta","item_id":"i","delta":"hello"}\n\n'
    b'data: {"type":"response.completed","response":{"status":"completed","output":[]}}\n\n'
)

Make = Callable[[], Attempt]


def chat() -> ChatAttempt:
    return ChatAttempt(SETTINGS, time.monotonic())


def response() -> ResponseAttempt:
    return ResponseAttempt({"input": "hi"}, SETTINGS, time.monotonic())


class Answering(httpx2.BaseTransport, httpx2.SyncByteStream):
    """Sends these blocks after a while, then ends in order or as ``ends_with`` says."""

    def __init__(
        self,
        *blocks: bytes,
        content_type: str = "text/event-stream",
        ends_with: Exception | None = None,
        after_seconds: float = 0.0,
    ) -> None:
        self._blocks = blocks
        self._content_type = content_type
        self._ends_with = ends_with
        self._after_seconds = after_seconds

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        time.sleep(self._after_seconds)
        return httpx2.Response(200, headers={"content-type": self._content_type}, stream=self)

    def __iter__(self) -> Iterator[bytes]:
        yield from self._blocks
        if self._ends_with is not None:
            raise self._ends_with


def batches_of(attempt: Attempt, transport: httpx2.BaseTransport) -> Iterator[Sequence[Event]]:
    upstream = Upstream(
        UpstreamSettings("u", base_url="http://127.0.0.1:1/v1", speaks_responses=True), SETTINGS
    )
    upstream.transport = transport
    return attempt.events(Route("m", "m", upstream), PROMPT)


def events_of(attempt: Attempt, transport: httpx2.BaseTransport) -> list[Event]:
    """Return what is told after ``thinking``."""
    thinking, *events = [event for batch in batches_of(attempt, transport) for event in batch]
    assert isinstance(thinking, Status)
    return events


@pytest.mark.parametrize(("make", "body"), [(chat, HELLO + STOP + END), (response, RESPONSE)])
def test_thinking_is_told_with_the_time_at_which_the_answer_came(make: Make, body: bytes) -> None:
    (first,) = next(iter(batches_of(make(), Answering(body, after_seconds=0.03))))

    assert isinstance(first, Status)
    assert first.status == "thinking"
    assert first.milliseconds >= 30


CUT = httpx2.ReadError("reset")


@pytest.mark.parametrize("ends_with", [None, CUT])
@pytest.mark.parametrize("after", [b"", END])
def test_a_completion_with_a_reason_to_finish_is_complete(after: bytes, ends_with: Exception | None) -> None:
    *events, done = events_of(chat(), Answering(ROLE + HELLO + STOP + after, ends_with=ends_with))

    assert text_of(events) == "hello"
    assert done == Done("stop")


@pytest.mark.parametrize("ends_with", [None, CUT])
@pytest.mark.parametrize(
    ("make", "body"),
    [(chat, ROLE), (chat, ROLE + HELLO), (chat, ROLE + HELLO + STOP[:-2]), (response, RESPONSE[:-1])],
)
@pytest.mark.parametrize("block_bytes", [1, 1000])
def test_an_answer_that_is_cut_says_so_and_whether_some_of_it_was_shown(
    make: Make, body: bytes, ends_with: Exception | None, block_bytes: int
) -> None:
    attempt = make()
    blocks = [body[place : place + block_bytes] for place in range(0, len(body), block_bytes)]
    heard: list[Event] = []

    def hear() -> None:
        for batch in batches_of(attempt, Answering(*blocks, ends_with=ends_with)):
            heard.extend(batch)

    with pytest.raises(UpstreamTruncated):
        hear()

    assert attempt.said_something == (text_of(heard) == "hello")
    assert attempt.said_something or [type(event) for event in heard] == [Status]


def test_only_a_role_is_shown_when_the_answer_ends_with_it() -> None:
    attempt = chat()

    events = events_of(attempt, Answering(ROLE, END))

    assert [type(event) for event in events] == [Chunk, Done]
    assert attempt.said_something


@pytest.mark.parametrize("make", [chat, response])
def test_a_whole_answer_is_cut_or_too_long_like_a_stream(make: Make) -> None:
    body = b'{"choices":[{"message":{"content":"hello"},"finish_reason":"stop"}]'
    with pytest.raises(UpstreamTruncated):
        events_of(make(), Answering(body, content_type="application/json", ends_with=CUT))

    blocks = [b" " * 1024 * 1024] * (MAX_WHOLE_ANSWER_BYTES // 1024 // 1024 + 1)
    with pytest.raises(UpstreamBadResponse) as caught:
        events_of(make(), Answering(*blocks, content_type="application/json"))
    assert caught.value.code == "too_large"


def test_half_a_character_in_a_whole_answer_is_replaced() -> None:
    message = rb'{"content":"\ud83d\ude00 a\ud83d"}'
    body = rb'{"id":"\ud83d","choices":[{"message":%s,"finish_reason":"stop"}]}' % message

    first, token, done = events_of(chat(), Answering(body, content_type="application/json"))

    assert isinstance(first, Chunk)
    assert first.first is not None
    assert first.first["id"] == "\ufffd"
    assert (token, done) == (Token("\U0001f600 a\ufffd"), Done("stop"))
