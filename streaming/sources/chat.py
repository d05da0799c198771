"""OpenAI chat completions, from any server that speaks them.

The SDK makes the request; the bytes of the answer are read here, in blocks,
because its own reader ends silently when an answer is cut off.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import httpx2
import msgspec
import openai

from streaming import scope, sse
from streaming.errors import UpstreamBadResponse, UpstreamFailure, UpstreamTimeout, UpstreamTruncated
from streaming.events import Chunk, Done, Event, Status
from streaming.settings import Settings
from streaming.sources import Batches, Prompt, Source, _attempts, _upstream
from streaming.sources._chunks import ChunkReader, parse
from streaming.sources._routes import Route, Routes, routes_of

MAX_EVENT_BYTES = 1024 * 1024
MAX_WHOLE_ANSWER_BYTES = 8 * 1024 * 1024
# What comes after [DONE] only matters for keeping the connection.
AFTER_DONE_SECONDS = 0.5
OWN_PARAMETERS = frozenset({"stream", "stream_options", "messages", "model"})


class ChatSource:
    """See `Source`."""

    def __init__(self, routes: Routes, settings: Settings) -> None:
        self._routes = routes
        self._settings = settings

    def events(self, prompt: Prompt) -> Batches:
        routes = self._routes.of(prompt.model)
        return _attempts.answer(
            routes, prompt, self._settings, lambda began: ChatAttempt(self._settings, began)
        )


class ChatAttempt:
    """See `_attempts.Attempt`: one request for a chat completion."""

    def __init__(self, settings: Settings, began: float) -> None:
        self.said_something = False
        """Some of the answer was shown, so that the request can't be made again."""
        self._settings = settings
        self._began = began
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
        self._done = False
        self._chunks = ChunkReader()

    def status(self, status: _attempts.Doing, model: str = "") -> Status:
        return Status(status, int((time.monotonic() - self._began) * 1000), model)

    def events(self, route: Route, prompt: Prompt) -> Batches:
        run = scope.current()
        seconds = self._settings.first_token_timeout_seconds
        self._first_token_by = time.monotonic() + seconds
        run.expect(seconds, self._no_first_token)
        with self._open(route, prompt) as response:
            yield [self.status("thinking")]
            if _media_type(response) == "application/json":
                yield self._whole_answer(response)
            else:
                yield from self._stream(response, run)

    @contextmanager
    def _open(self, route: Route, prompt: Prompt) -> Iterator[httpx2.Response]:
        try:
            request = route.client.chat.completions.with_streaming_response.create(
                model=route.model,
                messages=cast(Any, prompt.messages),
                stream=True,
                stream_options=_stream_options(prompt.params),
                extra_body={name: v for name, v in prompt.params.items() if name not in OWN_PARAMETERS},
            )
            with request as answer:
                _check_head(answer.http_response)
                yield answer.http_response
        except (openai.OpenAIError, httpx2.HTTPError) as error:
            failure = _upstream.failure_of(error)
            if self._settings.retry_ambiguous and failure.status in (502, 504):
                failure.may_retry = True
            raise failure from None

    def _stream(self, response: httpx2.Response, run: scope.Scope) -> Batches:
        decoder = sse.Decoder(MAX_EVENT_BYTES)
        lines = 0
        self._expect_more(run)
        for block in self._blocks(response):
            if self._done:
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
            if self._done:
                run.expect(AFTER_DONE_SECONDS, UpstreamTimeout("nothing came after the end"))
            elif decoder.lines > lines:
                lines = decoder.lines
                self._expect_more(run)
        if not self._done:
            events = []
            self._end_without_done(events)
            yield events

    def _expect_more(self, run: scope.Scope) -> None:
        """Give the upstream its time for the next complete line, whatever is in it."""
        idle_seconds = self._settings.idle_timeout_seconds
        left = self._first_token_by - time.monotonic()
        if not self.said_something and left < idle_seconds:
            run.expect(left, self._no_first_token)
        else:
            run.expect(idle_seconds, self._silent)

    def _blocks(self, response: httpx2.Response) -> Iterator[bytes]:
        try:
            yield from response.iter_raw()
        except httpx2.TransportError:
            if not self._done and not self._chunks.finish_reason:
                raise self._truncated() from None
            # The answer was complete; only the connection was not ended in order.

    def _read(self, found: list[bytes], events: list[Event]) -> None:
        """Add the events of ``found`` to ``events``, which holds those before a fault when one is raised."""
        for data in found:
            if data == b"[DONE]":
                self._finish(events)
                return
            if data.strip():
                self._read_chunk(data, events)

    def _read_chunk(self, data: bytes, events: list[Event]) -> None:
        if b'"error"' in data:
            chunk, _ = parse(data)
            if chunk.get("error"):
                raise _upstream.failure_of_error_object(chunk["error"])
        read = self._chunks.read(data)
        if self.said_something:
            events += read
            return
        # Held back until the answer begins: a request that fails before can be made again.
        self._preface += read
        if not all(map(_is_preface, read)):
            self._show_preface(events)

    def _show_preface(self, events: list[Event]) -> None:
        self.said_something = True
        events += self._preface
        self._preface = []

    def _finish(self, events: list[Event]) -> None:
        self._done = True
        self._show_preface(events)
        events += self._chunks.end()
        events.append(Done(self._chunks.finish_reason or "unknown", self._chunks.usage))

    def _end_without_done(self, events: list[Event]) -> None:
        if not self._chunks.finish_reason:
            raise self._truncated()
        self._finish(events)

    def _truncated(self) -> UpstreamTruncated:
        return UpstreamTruncated("the model's answer was cut off", may_retry=True)

    def _whole_answer(self, response: httpx2.Response) -> list[Event]:
        """Take an answer that came as one JSON object although a stream was asked for."""
        body = b""
        for block in self._blocks(response):
            body += block
            if len(body) > MAX_WHOLE_ANSWER_BYTES:
                raise UpstreamBadResponse("the model sent too long an answer", code="too_large")
        answer, _ = parse(body)
        if answer.get("error"):
            raise _upstream.failure_of_error_object(answer["error"])
        choices = answer.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise UpstreamBadResponse("the model sent what is not an answer", code="json")
        # The same as one chunk that holds everything.
        as_chunks = [
            {**choice, "delta": choice.get("message")} for choice in choices if isinstance(choice, dict)
        ]
        for choice in as_chunks:
            choice.pop("message", None)
        chunk = {**answer, "object": "chat.completion.chunk", "choices": as_chunks}
        events = self._chunks.read(msgspec.json.encode(chunk))
        self._finish(events)
        return events


def _stream_options(params: dict[str, Any]) -> Any:
    """Return the caller's; the usage is always asked for, whether the caller is told of it or not."""
    given = params.get("stream_options")
    return {**(given if isinstance(given, dict) else {}), "include_usage": True}


def _is_preface(event: Event) -> bool:
    """Say whether the event is only a role, or a filter's verdict: many servers send it at once."""
    return isinstance(event, Chunk) and not (event.extra and (event.extra.delta or event.extra.choice))


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


def create(settings: Settings) -> Source:
    routes = routes_of(settings)
    # Made now: the first run should not wait for it, nor the loop meanwhile.
    _ = routes.of(settings.default_model)[0].client.chat.completions.with_streaming_response
    return ChatSource(routes, settings)
