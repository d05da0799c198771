"""The models of agents: those of this service, for each agent that does not bring its own."""

import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import openai
from agents import Model, ModelProvider, ModelSettings, OpenAIChatCompletionsModel, OpenAIResponsesModel
from agents.models.default_models import get_default_model_settings

from streaming.runnables import _whole_answers
from streaming.runnables._clients import create_async_client
from streaming.settings import Settings
from streaming.sources._routes import Route, routes_of


class ServiceModels(ModelProvider):
    """Finds a model by its name; one instance, with its clients, for one asyncio loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # Made now, and not on the loop when the first run needs them: making one reads certificates.
        self._clients = {route.upstream.name: self._client(route) for route in routes_of(settings).all()}

    def get_model(self, model_name: str | None) -> Model:
        """Return the model that an agent names, or the default one. Raises `InvalidRequest`."""
        route = routes_of(self._settings).of(model_name or self._settings.default_model)[0]
        client = self._clients[route.upstream.name]
        found: Model
        if route.speaks_responses:
            found = OpenAIResponsesModel(route.model, client)
        else:
            found = OpenAIChatCompletionsModel(route.model, client)
        return found if model_name else _Unnamed(found, route.model)

    def _client(self, route: Route) -> openai.AsyncOpenAI:
        client = create_async_client(self._settings, route.name)
        _whole_answers.watch(client, self._settings)
        return client


class _Unnamed(Model):
    """A model for agents that name none.

    The SDK gives such agents the settings of its own default model, as an
    effort of reasoning, which another model may refuse.
    """

    def __init__(self, inner: Model, name: str) -> None:
        self._inner = inner
        self._name = name

    async def get_response(self, *given: Any, **named: Any) -> Any:
        given, named = self._fitting(given, named)
        return await self._inner.get_response(*given, **named)

    def stream_response(self, *given: Any, **named: Any) -> AsyncIterator[Any]:
        given, named = self._fitting(given, named)
        return self._inner.stream_response(*given, **named)

    def get_retry_advice(self, request: Any) -> Any:
        return self._inner.get_retry_advice(request)

    def _fitting(
        self, given: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of a request with the settings, its third, that fit this model."""
        settings: ModelSettings = named["model_settings"] if "model_settings" in named else given[2]
        implied = get_default_model_settings()
        if (settings.reasoning, settings.verbosity) != (implied.reasoning, implied.verbosity):
            return given, named  # somebody chose them
        own = get_default_model_settings(self._name)
        settings = dataclasses.replace(settings, reasoning=own.reasoning, verbosity=own.verbosity)
        if "model_settings" in named:
            return given, {**named, "model_settings": settings}
        return (*given[:2], settings, *given[3:]), named
