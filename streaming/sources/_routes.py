"""Where a model answers: its upstream, its name there, and what to ask when that fails."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import httpx2
import openai

from streaming.errors import InvalidRequest
from streaming.settings import Settings
from streaming.sources import _upstream
from streaming.sources._chat_request import ChatRequests
from streaming.upstreams import ModelSettings, UpstreamSettings


class Upstream:
    """One server: its client, made when it is first needed, and what was found out about it."""

    def __init__(self, upstream: UpstreamSettings, settings: Settings) -> None:
        self.name = upstream.name
        self.speaks_responses = upstream.speaks_responses
        """OpenAI's Responses. ``None``: not known yet; whoever finds out writes it down here."""
        self._upstream = upstream
        self._settings = settings

    @functools.cached_property
    def client(self) -> openai.OpenAI:
        return _upstream.create_client(self._upstream, self._settings, self.transport)

    @functools.cached_property
    def chat(self) -> ChatRequests:
        return ChatRequests(self.client, self.transport)

    @functools.cached_property
    def transport(self) -> httpx2.BaseTransport:
        return _upstream.create_transport(self._upstream, self._settings)


@dataclass(frozen=True)
class Route:
    name: str
    """What the model is called here."""
    model: str
    """What its upstream calls it."""
    upstream: Upstream

    @property
    def client(self) -> openai.OpenAI:
        return self.upstream.client

    @property
    def chat(self) -> ChatRequests:
        return self.upstream.chat

    @property
    def speaks_responses(self) -> bool | None:
        return self.upstream.speaks_responses


class Routes:
    """All routes of the settings; those to one upstream share its client and its connections."""

    def __init__(self, settings: Settings) -> None:
        self._default = settings.default_model
        self._catalogue = {model.name: model for model in settings.catalogue}
        asked = {model.upstream for model in settings.catalogue} or {settings.upstream}
        self._upstreams = {upstream: Upstream(upstream, settings) for upstream in asked}
        self._open = None if settings.catalogue else self._upstreams[settings.upstream]

    def of(self, model: str) -> Sequence[Route]:
        """Return the way to a model, then to its fallbacks in their order.

        Raises `InvalidRequest` for a model that is not in the file of models.
        """
        if self._open is not None:
            return [Route(model, model, self._open)]
        known = self._catalogue.get(model)
        if known is None:
            raise InvalidRequest(
                f"no model is called {model[:100]!r}; known: {', '.join(self._catalogue)}",
                code="unknown_model",
                param="model",
            )
        return [self._route(known), *(self._route(self._catalogue[name]) for name in known.fallbacks)]

    def all(self) -> Sequence[Route]:
        """Return one route for each model of the file; without a file, that of the default model."""
        if self._open is not None:
            return self.of(self._default)
        return [self._route(model) for model in self._catalogue.values()]

    def _route(self, model: ModelSettings) -> Route:
        return Route(model.name, model.name_there, self._upstreams[model.upstream])


@functools.cache
def routes_of(settings: Settings) -> Routes:
    """Return the routes of these settings, the same ones to every source."""
    return Routes(settings)
