"""The client to an upstream: its transport, time-outs, and what its errors mean here."""

from collections.abc import Iterator

import httpx2
import msgspec
import openai

from streaming import scope, traces
from streaming.errors import (
    UpstreamAuth,
    UpstreamBadResponse,
    UpstreamFailure,
    UpstreamOverloaded,
    UpstreamQuota,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from streaming.settings import Settings
from streaming.sources._demo import DemoTransport
from streaming.sources._http1 import HTTP1Transport
from streaming.upstreams import UpstreamSettings

HEADERS = {"Accept-Encoding": "identity"}
MAX_ERROR_BODY_BYTES = 64 * 1024
LONGEST_RETRY_AFTER_SECONDS = 10.0
# The upstream's codes that a caller can act on. Everything else it says may quote a key.
REJECTION_CODES = frozenset(
    "context_length_exceeded model_not_found invalid_prompt content_filter content_policy_violation"
    " invalid_image image_parse_error invalid_image_url unsupported_parameter unsupported_value"
    " string_above_max_length invalid_function_parameters max_tokens_exceeded".split()
)


def create_transport(upstream: UpstreamSettings, settings: Settings) -> httpx2.BaseTransport:
    """Return what carries requests to an upstream. Its waits are in the scope of the run that waits."""
    if settings.is_demo:
        transport: httpx2.BaseTransport = DemoTransport(settings.demo_tokens_per_second)
    elif settings.upstream_proxy and upstream.behind_proxy:
        transport = httpx2.HTTPTransport(proxy=settings.upstream_proxy)
    else:
        transport = HTTP1Transport()
    return ScopedTransport(transport)


def create_client(
    upstream: UpstreamSettings, settings: Settings, transport: httpx2.BaseTransport
) -> openai.OpenAI:
    """Return a client that never retries by itself and never follows a redirect."""
    client = openai.OpenAI(
        api_key=upstream.key or "none",
        base_url=upstream.base_url or None,
        max_retries=0,
        default_headers=HEADERS,
        http_client=openai.DefaultHttpx2Client(
            transport=transport,
            follow_redirects=False,
            trust_env=False,
            # How long a wait may last is the scope's business, except for connecting.
            timeout=httpx2.Timeout(None, connect=settings.connect_timeout_seconds),
        ),
    )
    if settings.catalogue:
        # The SDK finds these in OPENAI_ORG_ID, OPENAI_CUSTOM_HEADERS and others: one account's, sent to all.
        client.organization = client.project = client.admin_api_key = None
        client._custom_headers = HEADERS
    # The SDK finds out about the machine once, by running `uname`: not while the first run waits.
    _ = client.default_headers
    return client


class ScopedTransport(httpx2.BaseTransport):
    """Makes every wait of another transport part of the current run's scope."""

    def __init__(self, inner: httpx2.BaseTransport) -> None:
        self._inner = inner

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        traces.write(request.headers, with_request_id=True)
        run = scope.current()
        with run.waiting():
            response = self._inner.handle_request(request)
        assert isinstance(response.stream, httpx2.SyncByteStream)
        # The SDK reads the body of a redirect as it reads that of an error: to its end.
        limit = None if response.is_success else MAX_ERROR_BODY_BYTES
        response.stream = _ScopedBody(response.stream, run, limit)
        return response

    def close(self) -> None:
        self._inner.close()


class _ScopedBody(httpx2.SyncByteStream):
    def __init__(self, inner: httpx2.SyncByteStream, run: scope.Scope, max_bytes: int | None) -> None:
        self._inner = inner
        self._run = run
        self._max_bytes = max_bytes
        run.held.add(self)

    def __iter__(self) -> Iterator[bytes]:
        blocks = iter(self._inner)
        size = 0
        while True:
            with self._run.waiting():
                block = next(blocks, None)
            if block is None:
                self._run.held.discard(self)
                return
            size += len(block)
            if self._max_bytes is not None and size > self._max_bytes:
                return
            yield block

    def close(self) -> None:
        self._run.held.discard(self)
        self._inner.close()


def failure_of(error: Exception) -> UpstreamFailure:
    """Say in our own words what an exception of the SDK or its transport means.

    It says whether the request may be sent again, provided that nothing of an
    answer was shown.
    """
    cause = error.__cause__ if isinstance(error, openai.APIConnectionError) and error.__cause__ else error
    match cause:
        case openai.APIStatusError():
            return failure_of_answer(cause.response)
        case httpx2.ConnectTimeout():
            return UpstreamUnreachable("connecting to the model took too long", may_retry=True)
        case httpx2.ConnectError():
            return UpstreamUnreachable("the model cannot be reached", may_retry=True)
        case httpx2.TimeoutException():
            return UpstreamTimeout("the model was silent for too long", code="idle")
        case httpx2.TransportError() | openai.APIConnectionError():
            return UpstreamUnreachable("the model closed the connection without an answer")
        case _:
            return UpstreamBadResponse("the model sent what is not an answer")


def failure_of_error_object(error: object, status: int = 502) -> UpstreamFailure:
    """Say what an error object that came in a body, with status 200, means."""
    said = error if isinstance(error, dict) else {}
    code = str(said.get("code") or said.get("type") or "")
    if str(said.get("code") or "").isdigit():
        return failure_of_code(int(str(said["code"])), said)
    statuses = {
        "rate_limit_exceeded": 429,
        "insufficient_quota": 429,
        "invalid_api_key": 401,
        "authentication_error": 401,
        "invalid_request_error": 400,
        "overloaded_error": 529,
        "server_overloaded": 503,
    }
    return failure_of_code(400 if code in REJECTION_CODES else statuses.get(code, status), said)


def failure_of_code(
    status: int, said: dict[str, object], retry_after: float | None = None
) -> UpstreamFailure:
    code = str(said.get("code") or "")
    match status:
        case 401 | 403:
            return UpstreamAuth("the model's server does not accept this service's key")
        case 429 if "insufficient_quota" in (code, said.get("type")):
            return UpstreamQuota("this service's quota at the model's server is used up")
        case 429:
            return UpstreamRateLimited(
                "the model's server asks to slow down",
                may_retry=retry_after is not None and retry_after <= LONGEST_RETRY_AFTER_SECONDS,
                retry_after_seconds=retry_after,
            )
        case 503 | 529:
            return UpstreamOverloaded(
                "the model's server is overloaded", may_retry=True, retry_after_seconds=retry_after
            )
        case 408 | 409:
            return UpstreamFailure("the model's server failed", may_retry=True)
        case _ if 300 <= status < 400:
            return UpstreamBadResponse("the model's address answers with a redirect", code="redirect")
        case _ if 400 <= status < 500:
            known = code if code in REJECTION_CODES else ""
            return UpstreamRejected(
                f"the model's server rejects this request ({known or status})",
                code=known,
                status=status if status in (400, 404, 413, 422) else 400,
            )
        case _:
            return UpstreamFailure("the model's server failed", may_retry=True)


def failure_of_answer(response: httpx2.Response) -> UpstreamFailure:
    """Say what an answer that is no success means. Reads of it what `ScopedTransport` lets through."""
    said: object = None
    try:
        body = msgspec.json.decode(response.read())
        said = body.get("error", body) if isinstance(body, dict) else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, httpx2.HTTPError, httpx2.StreamError):
        pass
    return failure_of_code(
        response.status_code, said if isinstance(said, dict) else {}, _retry_after(response.headers)
    )


def _retry_after(headers: httpx2.Headers) -> float | None:
    """Return the seconds asked for. Source: RFC 9110, section 10.2.3; dates are passed over."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds < 86_400 else None
