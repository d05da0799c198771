"""``GET /v1/models``: what ``model`` may name in a request."""

import logging
import time
from threading import Lock

from flask import Blueprint, Response

from streaming.errors import NotFound, StreamingError
from streaming.settings import Settings
from streaming.sources import Model
from streaming.streams import Streams
from streaming.web import _v1
from streaming.web._errors import json_response

logger = logging.getLogger(__name__)

ASK_SECONDS = 5.0
KEPT_SECONDS = 60.0
# A server that is down is asked again sooner, but not by everybody who wants a list.
ASK_AGAIN_SECONDS = 5.0


def create(streams: Streams, settings: Settings) -> Blueprint:
    blueprint = _v1.create_blueprint("models")
    known = KnownModels(streams, settings)

    @blueprint.get("/models")
    def list_all() -> Response:
        return json_response({"object": "list", "data": nameable()})

    @blueprint.get("/models/<path:name>")
    def show(name: str) -> Response:
        for model in nameable():
            if model.id == name:
                return json_response(model)
        raise NotFound(f"no model is called {name[:100]!r}", code="model_not_found", param="model")

    def nameable() -> list[Model]:
        return [model for model in known.all() if streams.may_name(model.id)]

    return blueprint


class KnownModels:
    """The models a request may name: those of the settings, else what the upstream says that it has.

    To clients of OpenAI's dialects a runnable is one of them.
    """

    def __init__(self, streams: Streams, settings: Settings) -> None:
        self._streams = streams
        self._named = () if settings.is_demo else settings.models
        self._chosen = settings.model
        self._default = settings.default_model
        self._found: list[Model] = []
        self._ask_at = 0.0
        self._asking = Lock()

    def all(self) -> list[Model]:
        """Return them all, runnables too. Waits up to `ASK_SECONDS` for the upstream, once a minute."""
        found = [Model(name) for name in self._named] or self._upstreams()
        runnables = self._streams.registered
        return [*(model for model in found if model.id not in runnables), *map(Model, runnables)]

    def _upstreams(self) -> list[Model]:
        with self._asking:
            if time.monotonic() >= self._ask_at:
                self._ask()
        if self._chosen and self._chosen not in {model.id for model in self._found}:
            return [Model(self._chosen), *self._found]  # it is asked for, by whatever name the server has it
        return self._found or [Model(self._default)]

    def _ask(self) -> None:
        """Ask for the list; without an answer what was known before stands."""
        kept_seconds = KEPT_SECONDS
        try:
            with self._streams.questions.asking(ASK_SECONDS) as question:
                self._found = question.relay.models()
        except StreamingError as error:
            kept_seconds = ASK_AGAIN_SECONDS
            logger.warning("the upstream did not list its models", extra={"why": error.code})
        self._ask_at = time.monotonic() + kept_seconds
