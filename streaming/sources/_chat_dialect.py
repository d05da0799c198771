"""One request for an OpenAI chat completion, and what the bytes of its answer mean."""

import time
from contextlib import AbstractContextManager
from typing import Any

import httpx2
import msgspec

from streaming.errors import UpstreamBadResponse
from streaming.events import Chunk, Done, Event, Status
from streaming.settings import Settings
from streaming.sources import Batches, Prompt, _attempts, _upstream
from streaming.sources._chunks import ChunkReader, cleaned, parse
from streaming.sources._exchange import Exchange, truncated
from streaming.sources._routes import Route

MAX_EVENT_BYTES = 1024 * 1024
OWN_PARAMETERS = frozenset({"stream", "stream_options", "messages", "model"})


class ChatAttempt:
    """See `_attempts.Attempt`: one request for a chat completion."""

    def __init__(self, settings: Settings, began: float) -> None:
        self._exchange = Exchange(_Dialect(), settings)
        self._began = began

    @property
    def said_something(self) -> bool:
        return self._exchange.said_something

    def status(self, status: _attempts.Doing, model: str = "") -> Status:
        return Status(status, int((time.monotonic() - self._began) * 1000), model)

    def events(self, route: Route, prompt: Prompt) -> Batches:
        return self._exchange.events(_request(route, prompt), lambda: self.status("thinking"))


def _request(route: Route, prompt: Prompt) -> AbstractContextManager[httpx2.Response]:
    return route.chat.send(
        {
            "messages": prompt.messages,
            "model": route.model,
            "stream": True,
            "stream_options": _stream_options(prompt.params),
            **{name: v for name, v in prompt.params.items() if name not in OWN_PARAMETERS},
        }
    )


def _stream_options(params: dict[str, Any]) -> Any:
    """Return the caller's; the usage is always asked for, whether the caller is told of it or not."""
    given = params.get("stream_options")
    return {**(given if isinstance(given, dict) else {}), "include_usage": True}


class _Dialect:
    """See `_exchange.Dialect`."""

    max_event_bytes = MAX_EVENT_BYTES

    def __init__(self) -> None:
        self.ended = False
        self._chunks = ChunkReader()

    def read(self, data: bytes) -> list[Event]:
        if data == b"[DONE]":
            return self._finish()
        if b'"error"' in data:
            chunk, _ = parse(data)
            if chunk.get("error"):
                raise _upstream.failure_of_error_object(chunk["error"])
        return self._chunks.read(data)

    def text_of_event(self, block: bytes) -> str:
        return self._chunks.text_of_event(block)

    def end(self) -> list[Event]:
        # Some servers leave [DONE] out; with a reason to finish the answer is complete all the same.
        if not self._chunks.finish_reason:
            raise truncated()
        return self._finish()

    def read_whole(self, answer: dict[str, Any], odd: bool) -> list[Event]:
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
        as_json = msgspec.json.encode(cleaned(chunk) if odd else chunk)
        return self._chunks.read(as_json) + self._finish()

    def is_preface(self, event: Event) -> bool:
        """Say whether the event is only a role, or a filter's verdict: many servers send it at once."""
        return isinstance(event, Chunk) and not (event.extra and (event.extra.delta or event.extra.choice))

    def _finish(self) -> list[Event]:
        self.ended = True
        done = Done(self._chunks.finish_reason or "unknown", self._chunks.usage)
        return [*self._chunks.end(), done]
