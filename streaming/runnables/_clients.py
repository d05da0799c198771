"""The service's upstreams for code that it did not write: which settings, and a client for asyncio."""

import os

import httpx2
import openai

from streaming import traces
from streaming.settings import Settings
from streaming.sources._demo import AsyncDemoTransport
from streaming.sources._routes import routes_of


class _Traced(httpx2.AsyncHTTPTransport):
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        traces.write(request.headers, with_request_id=True)
        return await super().handle_async_request(request)


_in_use: list[Settings] = []


def use(settings: Settings) -> None:
    """Make models by these settings from now on; before that, it is by the environment."""
    _in_use[:] = [settings]


def settings_in_use() -> Settings:
    return _in_use[0] if _in_use else Settings.from_environ(os.environ)


def read_seconds(settings: Settings) -> float:
    """Return how long a client waits for the next byte.

    A whole answer that was not asked for as a stream may take as long as a first token.
    """
    return max(settings.first_token_timeout_seconds, settings.idle_timeout_seconds)


def create_async_client(settings: Settings, model: str = "") -> openai.AsyncOpenAI:
    """Return the like of the service's own client, to the upstream of ``model``, for one asyncio loop.

    Raises `InvalidRequest` for a model that the settings do not know.
    """
    name = model or settings.default_model
    client = routes_of(settings).of(name)[0].client
    upstream = {known.name: known.upstream for known in settings.catalogue}.get(name, settings.upstream)
    transport: httpx2.AsyncBaseTransport
    if settings.is_demo:
        transport = AsyncDemoTransport(settings.demo_tokens_per_second)
    else:
        proxy = settings.upstream_proxy if upstream.behind_proxy else ""
        # How many runs there may be is said elsewhere; by default the hundred-and-first would wait here.
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=100)
        transport = _Traced(proxy=proxy or None, limits=limits)
    asynchronous = openai.AsyncOpenAI(
        api_key=upstream.key or "none",
        base_url=client.base_url,
        max_retries=0,
        default_headers={"Accept-Encoding": "identity"},
        http_client=openai.DefaultAsyncHttpx2Client(
            transport=transport,
            follow_redirects=False,
            trust_env=False,
            timeout=httpx2.Timeout(read_seconds(settings), connect=settings.connect_timeout_seconds),
        ),
    )
    # What the SDK finds in OPENAI_ORG_ID and others: of one account, if there are several.
    asynchronous.organization, asynchronous.project = client.organization, client.project
    asynchronous._custom_headers = client._custom_headers
    return asynchronous
