"""Questions to an OpenAI-compatible server that are no runs: its models, embeddings, ChatKit's sessions."""

import time
from collections.abc import Callable
from typing import Any

import httpx2
import msgspec
import openai
from msgspec import Raw

from streaming.errors import UpstreamBadResponse
from streaming.events import Status
from streaming.settings import Settings
from streaming.sources import Batches, HostedSession, Model, Prompt, _upstream
from streaming.sources._attempts import Doing, answer
from streaming.sources._chatkit_sessions import SessionAttempt
from streaming.sources._routes import Route, routes_of

MAX_MODELS_BYTES = 4 * 1024 * 1024
MAX_EMBEDDINGS_BYTES = 64 * 1024 * 1024
MAX_NAME_CHARS = 200

Ask = Callable[[openai.OpenAI], "openai.Stream[object]"]
"""Send a request; the answer is a stream only so that nobody reads it before us."""


class OpenAIRelay:
    """See `Relay`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._routes = routes_of(settings)

    def models(self) -> list[Model]:
        route = self._routes.all()[0]
        body = _whole(
            lambda client: client.get(
                "/models", cast_to=object, stream=True, stream_cls=openai.Stream[object]
            ),
            route.client,
            MAX_MODELS_BYTES,
        )
        try:
            found = msgspec.json.decode(_list_of(body))
        except (msgspec.DecodeError, RecursionError):
            raise _not_json() from None
        return [model for said in found if (model := _model(said))]

    def embed(self, model: str, body: dict[str, Any]) -> bytes:
        # Never a fallback: the vectors of two models do not compare.
        route = self._routes.of(model)[0]
        question = _Embedding(body, self._settings)
        for _ in answer([route], Prompt(model, []), self._settings, question.begin):
            pass  # "retrying": nobody is there to be told
        return question.answer

    def chatkit_session(self, workflow_id: str, user: str) -> HostedSession:
        attempt = SessionAttempt(workflow_id, user, time.monotonic())
        for _ in answer([self._routes.all()[0]], Prompt("", []), self._settings, lambda began: attempt):
            pass
        assert attempt.session is not None
        return attempt.session


class _Embedding:
    """An `Attempt`: asked again like a run that has said nothing yet."""

    said_something = False

    def __init__(self, body: dict[str, Any], settings: Settings) -> None:
        self.answer = b""
        self._body = body
        self._settings = settings

    def begin(self, began: float) -> "_Embedding":
        self._began = began
        return self

    def status(self, status: Doing, model: str = "") -> Status:
        return Status(status, int((time.monotonic() - self._began) * 1000), model)

    def events(self, route: Route, prompt: Prompt) -> Batches:
        content = msgspec.json.encode({**self._body, "model": route.model})
        self.answer = _whole(
            lambda client: client.post(
                "/embeddings", cast_to=object, content=content, stream=True, stream_cls=openai.Stream[object]
            ),
            route.client,
            MAX_EMBEDDINGS_BYTES,
            self._settings.retry_ambiguous,
        )
        _list_of(self.answer)
        yield from ()


def _whole(ask: Ask, client: openai.OpenAI, max_bytes: int, retry_ambiguous: bool = False) -> bytes:
    """Return the whole answer. Raises `UpstreamFailure`."""
    try:
        with ask(client) as stream:
            _check_head(stream.response)
            body = bytearray()
            for block in stream.response.iter_raw():
                body += block
                if len(body) > max_bytes:
                    raise UpstreamBadResponse("the model's server sent too long an answer", code="too_large")
            return bytes(body)
    except (openai.OpenAIError, httpx2.HTTPError) as error:
        failure = _upstream.failure_of(error)
        if retry_ambiguous and failure.status in (502, 504):
            failure.may_retry = True
        raise failure from None


def _check_head(response: httpx2.Response) -> None:
    if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise UpstreamBadResponse("the model's server compresses its answer", code="encoding")
    if response.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise UpstreamBadResponse(
            "the model's server answers with something else than JSON", code="content_type"
        )


def _list_of(body: bytes) -> Raw:
    """Return the ``data`` of an answer, which is not looked into. Raises `UpstreamFailure`."""
    try:
        if not body.isascii():
            body.decode()
        fields = msgspec.json.decode(body, type=dict[str, Raw])
        error = msgspec.json.decode(fields["error"]) if "error" in fields else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _not_json() from None
    if error:
        raise _upstream.failure_of_error_object(error)
    listed = fields.get("data", Raw())
    if not bytes(memoryview(listed)[:1]).startswith(b"["):
        raise _not_json()
    return listed


def _not_json() -> UpstreamBadResponse:
    return UpstreamBadResponse("the model's server sent what is not an answer", code="json")


def _model(said: Any) -> Model | None:
    """Return a model as we tell it; what else servers say, paths of their disks say, stays here."""
    name = said.get("id") if isinstance(said, dict) else None
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_CHARS:
        return None
    created, owner = said.get("created"), said.get("owned_by")
    return Model(
        name,
        created if type(created) is int and 0 <= created < 2**53 else 0,
        owner if isinstance(owner, str) and len(owner) <= MAX_NAME_CHARS else "",
    )
