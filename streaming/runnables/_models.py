"""Models for a user's chains: this service's upstreams, or the demo model.

They share the service's connections, and their waits belong to the run, so a
cancel reaches their socket at once. Public as `streaming.models`.
"""

from typing import Any

import httpx2
from langchain_core.embeddings import Embeddings
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from streaming.runnables._clients import create_async_client, read_seconds, settings_in_use
from streaming.sources._routes import routes_of


def chat_model(model: str = "", **options: Any) -> ChatOpenAI:
    """Return a LangChain chat model that asks an upstream of this service.

    ``model`` is one of its models, by default the default one. ``options`` are
    those of `ChatOpenAI`. It streams, asks for usage, and waits for as long as
    the service's time-outs say; it asks again after a fault only where
    ``RETRY_AMBIGUOUS`` allows that, or ``max_retries`` is given. Fallbacks of
    the settings do not apply: LangChain has ``with_fallbacks``. Raises
    `InvalidRequest` for a model that the settings do not know.
    """
    settings = settings_in_use()
    route = routes_of(settings).of(model or settings.default_model)[0]
    again = options.pop("max_retries", settings.upstream_retries if settings.retry_ambiguous else 0)
    timeout = httpx2.Timeout(read_seconds(settings), connect=settings.connect_timeout_seconds)
    client = route.client.with_options(timeout=timeout, max_retries=again)
    asynchronous = create_async_client(settings, model).with_options(max_retries=again)
    given = {"streaming": True, "stream_usage": True, **options}
    return ChatOpenAI(
        model=route.model,
        client=client.chat.completions,
        root_client=client,
        async_client=asynchronous.chat.completions,
        root_async_client=asynchronous,
        **given,
    )


def embedding_model(model: str = "", **options: Any) -> Embeddings:
    """Return LangChain embeddings by an upstream of this service.

    ``model`` is by default ``text-embedding-3-small``, or the demo's; ``options``
    are those of `OpenAIEmbeddings`. Raises as ``chat_model``.
    """
    settings = settings_in_use()
    name = model or (settings.default_model if settings.is_demo else "text-embedding-3-small")
    route = routes_of(settings).of(name)[0]
    timeout = httpx2.Timeout(read_seconds(settings), connect=settings.connect_timeout_seconds)
    return OpenAIEmbeddings(
        model=route.model,
        client=route.client.with_options(timeout=timeout).embeddings,
        async_client=create_async_client(settings, name).embeddings,
        # It would otherwise count tokens, and download the tables for that.
        check_embedding_ctx_length=False,
        **options,
    )
