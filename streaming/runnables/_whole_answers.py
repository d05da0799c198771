"""Streams of an asynchronous client of OpenAI's SDK, watched: cut off, silent or too long is an error.

The SDK's own reader ends silently when an answer is cut off, and waits for ever
for the end of a line.
"""

import asyncio
import contextvars
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import httpx2
import openai

from streaming.errors import UpstreamBadResponse, UpstreamFailure, UpstreamTimeout, UpstreamTruncated
from streaming.settings import Settings

MAX_LINE_BYTES = 4 * 1024 * 1024
# As text inside of JSON these have backslashes before their quotes. Both dialects of OpenAI.
_END = re.compile(
    rb'(?:^|[\r\n])data: ?\[DONE\]|"finish_reason": ?"|"type": ?"response\.(?:completed|incomplete|failed)"'
)
_LONGEST_END_BYTES = 64


class FaultyAnswer(httpx2.TransportError):
    """What the SDK is told; ``failure`` is what it means."""

    def __init__(self, failure: UpstreamFailure) -> None:
        super().__init__(str(failure))
        self.failure = failure


def watch(client: openai.AsyncOpenAI, settings: Settings) -> None:
    """Watch every stream that ``client`` opens from now on."""

    async def begin(response: httpx2.Response) -> None:
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            response.stream = _Watched(response.stream, settings.idle_timeout_seconds)

    client._client.event_hooks["response"].append(begin)


class OpenAnswers:
    """How many streams of one run are open."""

    def __init__(self) -> None:
        self._count = 0
        self._none = asyncio.Event()
        self._none.set()

    def opened(self) -> None:
        self._count += 1
        self._none.clear()

    def closed(self) -> None:
        self._count -= 1
        if not self._count:
            self._none.set()

    async def all_closed(self, seconds: float) -> None:
        """Wait until the SDK, which closes them in the background, has closed them all."""
        try:
            async with asyncio.timeout(seconds):
                await self._none.wait()
        except TimeoutError:
            pass


_counted: contextvars.ContextVar[OpenAnswers] = contextvars.ContextVar("open_answers")


@contextmanager
def counted() -> Iterator[OpenAnswers]:
    """Count the streams that are opened in this context and in tasks made in it."""
    answers = OpenAnswers()
    token = _counted.set(answers)
    try:
        yield answers
    finally:
        _counted.reset(token)


class _Watched(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, idle_seconds: float) -> None:
        self._inner = inner
        self._idle_seconds = idle_seconds
        self._answers = _counted.get(None)
        if self._answers:
            self._answers.opened()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        blocks = aiter(self._inner)
        ended = False
        tail = b""
        line_bytes = 0
        while True:
            try:
                async with asyncio.timeout(self._idle_seconds):
                    block = await anext(blocks, None)
            except TimeoutError:
                raise FaultyAnswer(
                    UpstreamTimeout(f"the model was silent for {self._idle_seconds:g} seconds", code="idle")
                ) from None
            except httpx2.TransportError:
                block = None
            if block is None:
                break
            seen = tail + block
            ended = ended or _END.search(seen) is not None
            tail = seen[-_LONGEST_END_BYTES:]
            line_end = block.rfind(b"\n")
            line_bytes = len(block) - line_end - 1 if line_end >= 0 else line_bytes + len(block)
            if line_bytes > MAX_LINE_BYTES:
                raise FaultyAnswer(UpstreamBadResponse("the model sent too long a line", code="too_large"))
            yield block
        if not ended:
            raise FaultyAnswer(UpstreamTruncated("the model's answer was cut off"))

    async def aclose(self) -> None:
        answers, self._answers = self._answers, None
        try:
            await self._inner.aclose()
        finally:
            if answers:
                answers.closed()
