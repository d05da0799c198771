"""Requests for chat completions, whose head the SDK writes once.

Address, key and whatever else the SDK sends are the same in each request to an
upstream; only the body differs. Asking the SDK again for every run would cost
half of what a short run costs.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx2
import msgspec
import openai

from streaming.sources import _upstream


class ChatRequests:
    """To one upstream, over the connections of ``transport``."""

    def __init__(self, client: openai.OpenAI, transport: httpx2.BaseTransport) -> None:
        self._transport = transport
        written = _written_by_the_sdk(client)
        self._url = written.url
        self._headers = [
            (name, value) for name, value in written.headers.raw if name.lower() != b"content-length"
        ]
        self._extensions = {"timeout": written.extensions["timeout"]}

    @contextmanager
    def send(self, body: dict[str, Any]) -> Iterator[httpx2.Response]:
        """Return the answer, not read yet. Raises `UpstreamFailure` and ``httpx2.HTTPError``."""
        request = httpx2.Request(
            "POST",
            self._url,
            headers=self._headers,
            content=msgspec.json.encode(body),
            extensions=self._extensions,
        )
        response = self._transport.handle_request(request)
        response.request = request
        try:
            if not response.is_success:
                raise _upstream.failure_of_answer(response)
            yield response
        finally:
            response.close()


class _Taken(Exception):
    """The request was written: it need not be sent."""


def _written_by_the_sdk(client: openai.OpenAI) -> httpx2.Request:
    taken: list[httpx2.Request] = []

    def take(request: httpx2.Request) -> httpx2.Response:
        taken.append(request)
        raise _Taken

    own = client._client
    with openai.DefaultHttpx2Client(
        transport=httpx2.MockTransport(take), timeout=own.timeout, trust_env=False
    ) as writing:
        client._client = writing
        try:
            with suppress(_Taken, openai.APIConnectionError):
                client.chat.completions.create(model="", messages=[], stream=True)
        finally:
            client._client = own
    return taken[0]
