"""OpenAI's Responses, from any server: one that has only chat completions is asked for those.

Whether a server speaks Responses is found out by asking, where the settings do
not say it, and remembered.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import msgspec
import openai

from streaming.events import Event, ResponseEvent, Status
from streaming.settings import Settings
from streaming.sources import Batches, Prompt, Source, _attempts, _response_whole
from streaming.sources._chat_dialect import ChatAttempt
from streaming.sources._exchange import Exchange, truncated
from streaming.sources._request_parts import unsupported
from streaming.sources._response_as_chat import chat_of
from streaming.sources._response_events import ResponseReader
from streaming.sources._response_request import response_of
from streaming.sources._routes import Route, Routes, routes_of

# The last event holds the whole answer once more, images included.
MAX_EVENT_BYTES = 4 * 1024 * 1024
# Nothing is kept at the upstream, and its padding would only be thrown away.
OWN_PARAMETERS = frozenset({"model", "stream", "stream_options", "store", "background"})
# They would let one caller read what another said, under this service's key.
NOT_KEPT = ("conversation", "previous_response_id")
# What many servers send at once, before the model has begun.
PREFACE = frozenset(
    "response.created response.queued response.in_progress response.output_item.added"
    " response.content_part.added response.reasoning_summary_part.added keepalive ping".split()
)
NO_SUCH_ROUTE = (404, 405, 501)


class ResponseSource:
    """See `Source`. Raises `InvalidRequest` for what the prompt's server has no counterpart for."""

    def __init__(self, routes: Routes, settings: Settings) -> None:
        self._routes = routes
        self._settings = settings

    def events(self, prompt: Prompt) -> Batches:
        body = body_of(prompt)
        routes = self._routes.of(prompt.model)
        return _attempts.answer(
            routes, prompt, self._settings, lambda began: ResponseAttempt(body, self._settings, began)
        )


def body_of(prompt: Prompt) -> dict[str, Any]:
    """Return what to ask of a server that speaks Responses, but for the model. Raises `InvalidRequest`."""
    if prompt.response is None:
        return response_of(prompt)
    for name in NOT_KEPT:
        if prompt.response.get(name) is not None:
            raise unsupported(name, "nothing is kept at the model's server")
    return {
        name: value
        for name, value in prompt.response.items()
        if name not in OWN_PARAMETERS and name not in NOT_KEPT
    }


class ResponseAttempt:
    """See `_attempts.Attempt`: one request for a response, or for a chat completion instead."""

    def __init__(self, body: dict[str, Any], settings: Settings, began: float) -> None:
        self.said_something = False
        self._body = body
        self._settings = settings
        self._began = began

    def status(self, status: _attempts.Doing, model: str = "") -> Status:
        return Status(status, int((time.monotonic() - self._began) * 1000), model)

    def events(self, route: Route, prompt: Prompt) -> Batches:
        if route.speaks_responses is not False:
            try:
                yield from self._ask(route)
                return
            except _NoSuchRoute:
                pass
        yield from self._ask_for_chat(route, prompt)

    def _ask(self, route: Route) -> Batches:
        exchange = Exchange(_Dialect(), self._settings)
        try:
            yield from exchange.events(self._request(route), lambda: self.status("thinking"))
        finally:
            self._learn(route, exchange.said_something, True)

    def _ask_for_chat(self, route: Route, prompt: Prompt) -> Batches:
        if prompt.response is not None:
            messages, params = chat_of(self._body)
            prompt = msgspec.structs.replace(prompt, messages=messages, params=params, response=None)
        chat = ChatAttempt(self._settings, self._began)
        try:
            yield from chat.events(route, prompt)
        finally:
            self._learn(route, chat.said_something, False)

    def _learn(self, route: Route, said_something: bool, speaks_responses: bool) -> None:
        """Note what was shown; only an answer proves what its server speaks.

        A 404 alone may as well mean that it does not know the model.
        """
        self.said_something = said_something
        if said_something and route.upstream.speaks_responses is None:
            route.upstream.speaks_responses = speaks_responses

    @contextmanager
    def _request(self, route: Route) -> Iterator[httpx2.Response]:
        try:
            with route.client.responses.with_streaming_response.create(
                model=route.model, stream=True, store=False, extra_body=self._body
            ) as answer:
                yield answer.http_response
        except openai.APIStatusError as error:
            # Not "is None": another run may have found it out meanwhile.
            if route.speaks_responses is not True and _is_no_such_route(error):
                raise _NoSuchRoute from None
            raise


class _NoSuchRoute(Exception):
    """The upstream has no Responses."""


def _is_no_such_route(error: openai.APIStatusError) -> bool:
    return error.status_code in NO_SUCH_ROUTE and error.code != "model_not_found"


class _Dialect:
    """See `_exchange.Dialect`."""

    max_event_bytes = MAX_EVENT_BYTES

    def __init__(self) -> None:
        self.ended = False
        self._reader = ResponseReader()

    def read(self, data: bytes) -> list[Event]:
        if data == b"[DONE]":
            raise truncated()  # some servers send it last; before the end it is too early
        events = self._reader.read(data)
        self.ended = self._reader.ended
        return events

    def text_of_event(self, block: bytes) -> str:
        return ""  # each says its number and its item

    def end(self) -> list[Event]:
        raise truncated()

    def read_whole(self, answer: dict[str, Any], odd: bool) -> list[Event]:
        events = [
            event for said in _response_whole.events_of(answer) for event in self._reader.take(said, odd)
        ]
        self.ended = self._reader.ended
        return events

    def is_preface(self, event: Event) -> bool:
        return isinstance(event, ResponseEvent) and not event.more and event.event["type"] in PREFACE


def create(settings: Settings) -> Source:
    routes = routes_of(settings)
    # Made now: the first run should not wait for it, nor the loop meanwhile.
    _ = routes.of(settings.default_model)[0].client.responses.with_streaming_response
    return ResponseSource(routes, settings)
