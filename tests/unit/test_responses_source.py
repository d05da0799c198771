"""A request in the shape of Responses, from the source to the upstream and back."""

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from streaming.errors import InvalidRequest
from streaming.events import Done, Event, Reasoning, ResponseEvent, Status, Token, ToolCall
from streaming.settings import Settings
from streaming.sources import Prompt, responses
from tests.doubles import text_of

HI = [{"type": "message", "role": "user", "content": "hi"}]
DONE = {"type": "response.completed", "response": {"status": "completed", "output": [], "usage": None}}
DELTA = {"type": "response.output_text.delta", "item_id": "msg_1", "delta": "hello"}


class Answering(ThreadingHTTPServer):
    """An upstream that sends the same events to everybody, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self, *said: dict[str, Any]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.body = b"".join(b"data: %s\n\n" % json.dumps(one).encode() for one in said)
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Answering

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.server.asked.append((self.path, json.loads(self.rfile.read(length))))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def upstream() -> Iterator[Answering]:
    server = Answering(DELTA, DONE)
    yield server
    server.shutdown()
    server.server_close()


def ask(settings: Settings, body: dict[str, Any]) -> list[Event]:
    """Return all events of a request in the shape of Responses."""
    source = responses.create(settings)
    with closing(source.events(Prompt("m", [], response=body))) as batches:
        return [event for batch in batches for event in batch]


def ask_upstream(upstream: Answering, body: dict[str, Any], speaks: Any = "yes") -> list[Event]:
    return ask(Settings(openai_base_url=upstream.url, upstream_responses=speaks), body)


def test_a_request_goes_on_as_it_is(upstream: Answering) -> None:
    body = {
        "input": HI,
        "instructions": "be brief",
        "tools": [{"type": "web_search"}],
        "include": ["reasoning.encrypted_content"],
        "metadata": {"a": "b"},
        "x_vendor": [1, {"deep": None}],
        "temperature": None,
    }

    events = ask_upstream(upstream, body)

    assert upstream.asked == [("/v1/responses", {**body, "model": "m", "stream": True, "store": False})]
    assert [type(event) for event in events] == [Status, ResponseEvent, Token, ResponseEvent, Done]


def test_what_is_this_services_own_business_is_not_passed_on(upstream: Answering) -> None:
    own = {"model": "x", "stream": False, "store": True, "background": True, "stream_options": {"y": 1}}

    ask_upstream(upstream, {"input": HI, "previous_response_id": None, **own})

    assert upstream.asked[0][1] == {"input": HI, "model": "m", "stream": True, "store": False}


@pytest.mark.parametrize("more", [b"data: [DONE]\n\n", b"data: not json\n\n", b"data: [1]\n\ndata: x"])
def test_what_comes_with_the_end_and_after_it_counts_for_nothing(upstream: Answering, more: bytes) -> None:
    upstream.body += more

    *_, text, _completed, done = ask_upstream(upstream, {"input": HI})

    assert (text, done) == (Token("hello"), Done("stop"))


def test_empty_data_is_no_event(upstream: Answering) -> None:
    upstream.body = b"data:\n\ndata: \n\n: comment\n\n" + upstream.body

    assert text_of(ask_upstream(upstream, {"input": HI})) == "hello"


@pytest.mark.parametrize("speaks", ["yes", "no", "auto"])
@pytest.mark.parametrize("name", ["conversation", "previous_response_id"])
def test_what_others_said_at_the_upstream_cannot_be_asked_for(
    upstream: Answering, name: str, speaks: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ask_upstream(upstream, {"input": HI, name: "of somebody else"}, speaks)

    assert (caught.value.param, caught.value.code) == (name, "unsupported_parameter")
    assert upstream.asked == []


def test_what_chat_completions_cannot_do_is_refused_and_nobody_asked(upstream: Answering) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ask_upstream(upstream, {"input": HI, "tools": [{"type": "web_search"}]}, "no")

    assert caught.value.param == "tools[0].type"
    assert upstream.asked == []


# The demo model, which has chat completions only


def test_a_conversation_reaches_a_model_that_has_only_chat_completions() -> None:
    call = {"type": "function_call", "call_id": "call_1", "name": "clock", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "call_1", "output": "noon"}

    events = ask(Settings(), {"input": [*HI, call, result], "instructions": "be brief"})

    assert isinstance(events[-1], Done)
    assert events[-1].finish_reason == "stop"
    assert text_of(events)
    assert not any(isinstance(event, ResponseEvent) for event in events)


def test_a_model_that_has_only_chat_completions_calls_functions_of_responses() -> None:
    function = {"type": "function", "name": "clock", "parameters": {"type": "object", "properties": {}}}

    events = ask(
        Settings(),
        {"input": HI, "tools": [function], "tool_choice": {"type": "function", "name": "clock"}},
    )

    assert [event.tool for event in events if isinstance(event, ToolCall)] == ["clock"]
    assert not any(isinstance(event, Reasoning) for event in events)
    assert isinstance(events[-1], Done)
