"""One request to an upstream and the stream that answers it, whatever dialect it is in.

The request is the SDK's, or has a head that it wrote; the bytes of the answer are
read here, in blocks, because the SDK's own readers end silently when an answer is cut off. What the bytes
mean is the dialect's to say; when they are late, too many or too few, is said here.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import Any, Protocol

import httpx2
import openai

from streaming import scope, sse
from streaming.errors import UpstreamBadResponse, UpstreamFailure, UpstreamTimeout, UpstreamTruncated
from streaming.events import Event, Token
from streaming.settings import Settings
from streaming.sources import Batches, Flow, _upstream
from streaming.sources._chunks import parse
from streaming.sources._http1 import Body

MAX_WHOLE_ANSWER_BYTES = 8 * 1024 * 1024
# What comes after the end of the answer only matters for keeping the connection.
AFTER_END_SECONDS = 0.5


class Dialect(Protocol):
    """What one answer's bytes mean."""

    max_event_bytes: int
    ended: bool
    """The upstream said that the answer is complete."""

    def read(self, data: bytes) -> list[Event]:
        """Return the events of one event. Raises the failure it tells or is."""
        ...

    def text_of_event(self, block: bytes) -> str:
        """Return the text of ``block`` if it is one server-sent event that holds nothing else, else "".

        Whoever uses it need not ``read`` the event.
        """
        ...

    def end(self) -> list[Event]:
        """Return the events that end an answer whose upstream closed without saying that it was complete.

        Raises `UpstreamTruncated` where it was not.
        """
        ...

    def read_whole(self, answer: dict[str, Any], odd: bool) -> list[Event]:
        """Return the events of an answer that came as one JSON object; ``odd`` as `parse` says."""
        ...

    def is_preface(self, event: Event) -> bool:
        """Say whether an event may come before the upstream has begun to answer."""
        ...


class Exchange:
    """One request; its deadlines are told to the run's scope."""

    def __init__(self, dialect: Dialect, settings: Settings) -> None:
        self.said_something = False
        """Some of the answer was shown, so that the request can't be made again."""
        self._dialect = dialect
        self._settings = settings
        self._first_token_by = math.inf
        self._no_first_token = UpstreamTimeout(
            f"the model did not begin to answer in {settings.first_token_timeout_seconds:g} seconds",
            code="first_token",
            may_retry=settings.retry_ambiguous,
        )
        self._silent = UpstreamTimeout(
            f"the model was silent for {settings.idle_timeout_seconds:g} seconds", code="idle", may_retry=True
        )
        self._preface: list[Event] = []

    def events(
        self, request: AbstractContextManager[httpx2.Response], on_answer: Callable[[], Event]
    ) -> Batches:
        """Yield the events of the answer to ``request``, which is made by entering it.

        What ``on_answer`` returns is told as soon as there is an answer that can be read.
        """
        run = scope.current()
        seconds = self._settings.first_token_timeout_seconds
        self._first_token_by = time.monotonic() + seconds
        run.expect(seconds, self._no_first_token)
        with self._failures(), request as response:
            _check_head(response)
            yield [on_answer()]
            if _media_type(response) == "application/json":
                yield self._whole_answer(response)
            else:
                yield from self._stream(response, run)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (openai.OpenAIError, httpx2.HTTPError) as error:
            failure = _upstream.failure_of(error)
            if self._settings.retry_ambiguous and failure.status in (502, 504):
                failure.may_retry = True
            raise failure from None

    def _stream(self, response: httpx2.Response, run: scope.Scope) -> Batches:
        dialect = self._dialect
        decoder = sse.Decoder(dialect.max_event_bytes)
        lines = 0
        body: Body | None = response.extensions.get("body")
        self._expect_more(run)
        for block in _blocks(response):
            if dialect.ended:
                continue  # read to its end, so that the connection is kept
            found = decoder.feed(block)
            events: list[Event] = []
            try:
                self._read(found, events)
                if decoder.too_long:
                    raise UpstreamBadResponse("the model sent too long a line", code="too_large")
            except UpstreamFailure:
                if events:
                    yield events  # what came before the fault is shown
                raise
            if events:
                yield events
            if dialect.ended:
                run.expect(AFTER_END_SECONDS, UpstreamTimeout("nothing came after the end"))
            elif decoder.lines > lines:
                lines = decoder.lines
                self._expect_more(run)
                if body and self.said_something and decoder.at_rest and dialect.text_of_event(block):
                    yield Flow(partial(self._pour, body, run), body.interrupt)
        if not dialect.ended:
            yield self._begin(dialect.end())

    def _pour(self, body: Body, run: scope.Scope, take: Callable[[Token], bool]) -> None:
        """See `Flow.pour`."""
        text_of_event = self._dialect.text_of_event

        def take_block(block: bytes) -> bool:
            text = text_of_event(block)
            if not text or not take(Token(text)):
                return False
            self._expect_more(run)
            return True

        with run.waiting():
            body.pour(take_block)

    def _expect_more(self, run: scope.Scope) -> None:
        """Give the upstream its time for the next complete line, whatever is in it."""
        idle_seconds = self._settings.idle_timeout_seconds
        if not self.said_something and (left := self._first_token_by - time.monotonic()) < idle_seconds:
            run.expect(left, self._no_first_token)
        else:
            run.expect(idle_seconds, self._silent)

    def _read(self, found: list[bytes], events: list[Event]) -> None:
        """Add the events of ``found`` to ``events``, which holds those before a fault when one is raised."""
        dialect = self._dialect
        for data in found:
            if dialect.ended:
                return
            if not data.strip():
                continue
            read = dialect.read(data)
            if self.said_something:
                events += read
            elif not all(map(dialect.is_preface, read)):
                events += self._begin(read)
            else:
                # Held back until the answer begins: a request that fails before can be made again.
                self._preface += read

    def _begin(self, read: list[Event]) -> list[Event]:
        """Return what was held back and what came now: from here on some of the answer is shown."""
        self.said_something = True
        shown, self._preface = self._preface + read, []
        return shown

    def _whole_answer(self, response: httpx2.Response) -> list[Event]:
        """Take an answer that came as one JSON object although a stream was asked for."""
        body = bytearray()
        try:
            for block in response.iter_raw():
                body += block
                if len(body) > MAX_WHOLE_ANSWER_BYTES:
                    raise UpstreamBadResponse("the model sent too long an answer", code="too_large")
        except httpx2.TransportError:
            raise truncated() from None
        events = self._dialect.read_whole(*parse(bytes(body)))
        self.said_something = True
        return events


def truncated() -> UpstreamTruncated:
    return UpstreamTruncated("the model's answer was cut off", may_retry=True)


def _blocks(response: httpx2.Response) -> Iterator[bytes]:
    """Yield what comes until the connection ends, be it by a cut: what is missing, the dialect can tell."""
    with suppress(httpx2.TransportError):
        yield from response.iter_raw()


def _media_type(response: httpx2.Response) -> str:
    return response.headers.get("content-type", "").partition(";")[0].strip().lower()


def _check_head(response: httpx2.Response) -> None:
    """Refuse an answer that cannot hold a stream. Raises `UpstreamBadResponse`."""
    if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise UpstreamBadResponse("the model's server compresses its stream", code="encoding")
    if _media_type(response) not in ("text/event-stream", "application/json"):
        raise UpstreamBadResponse(
            "the model's server answers with something else than a stream", code="content_type"
        )
