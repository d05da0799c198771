"""A chat completion in OpenAI's JSON, whole or as the events of a stream."""

import hashlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import NamedTuple

import msgspec

from streaming import sse
from streaming.sources._demo_answers import Answer, answer
from streaming.sources._demo_request import ChatRequest


class Piece(NamedTuple):
    """Bytes to send with the ``at_token``-th token; 0 is before the first."""

    at_token: int
    content: bytes


class Completion:
    """The answer to one request, all of it decided at once; raises ``BadRequest``.

    Ids derive from ``digest``, so the same request gets the same ones.
    """

    def __init__(self, request: ChatRequest, digest: str) -> None:
        said = answer(request)
        self._choices = [_choice(said, request, digest, index) for index in range(request.n or 1)]
        self._usage = _usage(request, self._choices)
        self._with_usage = request.stream_options is not None and request.stream_options.include_usage is True
        self._envelope = {
            "id": f"chatcmpl-{digest[:29]}",
            "object": "chat.completion.chunk" if request.stream else "chat.completion",
            "created": int(time.time()),
            "model": request.model,
            "service_tier": "default",
            "system_fingerprint": "fp_demo",
        }
        self.streamed = request.stream is True
        # The tokens of the longest choice.
        self.length = max(len(choice.tokens) for choice in self._choices)

    def whole(self) -> dict[str, object]:
        choices = [
            {"index": i, "message": choice.message(), "logprobs": None, "finish_reason": choice.finish_reason}
            for i, choice in enumerate(self._choices)
        ]
        return {**self._envelope, "choices": choices, "usage": self._usage}

    def events(self) -> Iterator[Piece]:
        """Yield the stream's events, one a piece; several choices take turns, token by token."""
        for index, choice in enumerate(self._choices):
            yield Piece(0, self._chunk(index, choice.role()))
        for at, turn in enumerate(zip_longest(*(choice.tokens for choice in self._choices)), start=1):
            for index, token in enumerate(turn):
                if token is not None:
                    yield Piece(at, self._chunk(index, token.delta()))
        for index, choice in enumerate(self._choices):
            yield Piece(self.length, self._chunk(index, {}, choice.finish_reason))
        if self._with_usage:
            yield Piece(self.length, _event({**self._envelope, "choices": [], "usage": self._usage}))
        yield Piece(self.length, sse.frame(b"[DONE]"))

    def _chunk(self, index: int, delta: dict[str, object], finish_reason: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        no_usage_yet = {"usage": None} if self._with_usage else {}
        return _event({**self._envelope, "choices": [choice], **no_usage_yet})


def tokenize(text: str) -> list[str]:
    """Cut ``text`` into word-like tokens that add up to it again.

    >>> tokenize("Hello,  big world!")
    ['Hello', ',', '  big', ' world', '!']
    """
    return re.findall(r"\s*\w{1,12}|\s*[^\w\s]{1,4}|\s+", text)


class _Token(NamedTuple):
    """A token of the text, or of the arguments of the tool call at index ``call``."""

    text: str
    call: int | None = None
    call_id: str = ""
    tool: str = ""

    def delta(self) -> dict[str, object]:
        if self.call is None:
            return {"content": self.text}
        if not self.call_id:
            return {"tool_calls": [{"index": self.call, "function": {"arguments": self.text}}]}
        function = {"name": self.tool, "arguments": self.text}
        return {
            "tool_calls": [{"index": self.call, "id": self.call_id, "type": "function", "function": function}]
        }


class _Choice(NamedTuple):
    tokens: Sequence[_Token]
    finish_reason: str

    def role(self) -> dict[str, object]:
        text = None if self.tokens and self.tokens[0].call is not None else ""
        return {"role": "assistant", "content": text, "refusal": None}

    def message(self) -> dict[str, object]:
        """Return what the deltas of this choice add up to."""
        text = "".join(token.text for token in self.tokens if token.call is None)
        calls = [
            {
                "id": opening.call_id,
                "type": "function",
                "function": {
                    "name": opening.tool,
                    "arguments": "".join(token.text for token in self.tokens if token.call == opening.call),
                },
            }
            for opening in self.tokens
            if opening.call_id
        ]
        message: dict[str, object] = {
            "role": "assistant",
            "content": text,
            "refusal": None,
            "annotations": [],
        }
        return {**message, "content": None, "tool_calls": calls} if calls else message


def _choice(said: Answer, request: ChatRequest, digest: str, index: int) -> _Choice:
    text = said.text
    if index and said.is_prose:
        text += f"\n\n_(choice {index + 1} of {request.n})_"
    tokens = [_Token(token) for token in tokenize(_before_stop(text, request.stop))]
    for at, call in enumerate(said.calls):
        call_id = "call_" + hashlib.sha256(f"{digest}.{index}.{at}".encode()).hexdigest()[:24]
        tokens.append(_Token("", at, call_id, call.name))
        tokens.extend(_Token(fragment, at) for fragment in tokenize(call.arguments))
    limit = request.token_limit
    if limit is not None and len(tokens) > limit:
        return _Choice(tokens[:limit], "length")
    return _Choice(tokens, "tool_calls" if said.calls else "stop")


def _before_stop(text: str, stop: str | list[str] | None) -> str:
    """Return ``text`` up to the first of the stop sequences.

    >>> _before_stop("one, two. three", [".", ","])
    'one'
    """
    sequences = [stop] if isinstance(stop, str) else stop or []
    return text[: min((at for one in sequences if one and (at := text.find(one)) >= 0), default=None)]


def _usage(request: ChatRequest, choices: Sequence[_Choice]) -> dict[str, object]:
    prompt = sum(len(tokenize(message.text)) for message in request.messages)
    completion = sum(len(choice.tokens) for choice in choices)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _event(content: Mapping[str, object]) -> bytes:
    return sse.frame(msgspec.json.encode(content))
