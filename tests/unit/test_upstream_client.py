"""What the client to an upstream takes of an answer that is not the one it asked for."""

from collections.abc import Iterator

import httpx2
import openai
import pytest

from streaming.errors import UpstreamBadResponse, UpstreamFailure
from streaming.sources._upstream import MAX_ERROR_BODY_BYTES, ScopedTransport, failure_of

BLOCK = b" " * 4096
MUCH_BYTES = 16 * MAX_ERROR_BODY_BYTES


class Lengthy(httpx2.BaseTransport, httpx2.SyncByteStream):
    """Answers with ``status`` and a long body, and counts what is taken of it."""

    def __init__(self, status: int) -> None:
        self.taken_bytes = 0
        self.closed = False
        self._status = status

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        headers = {"location": "http://127.0.0.1:1/elsewhere", "content-type": "text/event-stream"}
        return httpx2.Response(self._status, headers=headers, stream=self)

    def __iter__(self) -> Iterator[bytes]:
        while self.taken_bytes < MUCH_BYTES:
            self.taken_bytes += len(BLOCK)
            yield BLOCK

    def close(self) -> None:
        self.closed = True


def client_of(transport: httpx2.BaseTransport) -> openai.OpenAI:
    http_client = openai.DefaultHttpx2Client(transport=ScopedTransport(transport), follow_redirects=False)
    return openai.OpenAI(
        api_key="none", base_url="http://127.0.0.1:1/v1", max_retries=0, http_client=http_client
    )


def ask(client: openai.OpenAI) -> int:
    """Return how many bytes there are in the answer to a streamed request."""
    request = client.chat.completions.with_streaming_response.create(model="m", messages=[], stream=True)
    with request as answer:
        return sum(map(len, answer.http_response.iter_raw()))


def failure_from(transport: httpx2.BaseTransport) -> UpstreamFailure:
    with pytest.raises(openai.APIStatusError) as caught:
        ask(client_of(transport))
    return failure_of(caught.value)


@pytest.mark.parametrize("status", [300, 302, 304, 307, 308, 400, 404, 500, 503])
def test_a_long_body_with_a_redirect_or_an_error_is_not_read_to_its_end(status: int) -> None:
    upstream = Lengthy(status)

    failure = failure_from(upstream)

    assert upstream.taken_bytes <= MAX_ERROR_BODY_BYTES + len(BLOCK)
    assert upstream.closed
    assert isinstance(failure, UpstreamBadResponse) == (status < 400)
    assert (failure.code == "redirect") == (status < 400)


def test_an_answer_may_be_longer_than_an_error() -> None:
    assert ask(client_of(Lengthy(200))) == MUCH_BYTES
