"""Ask ``POST /v1/chat/completions`` through Flask's client, and look at the answer as its clients do."""

import json
from typing import Any

from werkzeug.test import TestResponse

from streaming.events import Done
from streaming.sources._chunks import ChunkReader
from tests.doubles import ScriptedSource, Step, parse_event_stream
from tests.web.conftest import Service

PATH = "/v1/chat/completions"
JSON = {"Content-Type": "application/json"}
MESSAGES = [{"role": "user", "content": "hello"}]


def ask(service: Service, headers: dict[str, str] | None = None, **body: Any) -> TestResponse:
    """Return the answer, read to its end; greenlets may ask side by side."""
    client = service.client.application.test_client()
    return client.post(PATH, json={"messages": MESSAGES} | body, headers=headers, buffered=True)


def refused(response: TestResponse, status: int, kind: str, **fields: Any) -> dict[str, Any]:
    """Check that an answer is an error as OpenAI's clients read it; return the error."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Cache-Control"] == "no-store"
    assert len(response.data) < 4096, "an error repeats what was sent"
    error: dict[str, Any] = response.json["error"]
    assert set(error) == {"message", "type", "param", "code", "retryable", "request_id"}
    assert error["type"] == kind
    assert error["message"]
    assert response.headers["X-Request-Id"]
    assert {name: error[name] for name in fields} == fields
    return error


def data_of(response: TestResponse) -> list[Any]:
    """Return what each event of a stream holds, after checking that there is nothing but ``data:`` lines."""
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    for line in response.data.split(b"\n"):
        assert not line or line.startswith((b"data: ", b":")), line
    events = parse_event_stream(response.data).heard
    assert all(event.data and event.type == "message" and not event.last_event_id for event in events)
    return [event.data if event.data == "[DONE]" else json.loads(event.data) for event in events]


def chunks_of(response: TestResponse) -> list[dict[str, Any]]:
    """Return the chunks of an answer that ended as it should."""
    *chunks, last = data_of(response)
    assert last == "[DONE]"
    assert all("error" not in chunk or chunk["error"] is None for chunk in chunks)
    return chunks


def text_of(chunks: list[dict[str, Any]], index: int = 0, field: str = "content") -> str:
    choices = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
    return "".join(choice["delta"].get(field) or "" for choice in choices)


def upstream_of(chunks: list[dict[str, Any]], *instead_of_an_end: Step) -> ScriptedSource:
    """Return a source that read these chunks from its upstream, one batch each, and maybe came to no end."""
    reader = ChunkReader()
    batches = [reader.read(json.dumps(one).encode()) for one in chunks]
    end = [*reader.end(), Done(reader.finish_reason or "unknown", reader.usage)]
    return ScriptedSource(*batches, *(instead_of_an_end or [end]))


def completion(service: Service, **asked: Any) -> dict[str, Any]:
    """Return a whole answer, after checking that it has all that clients rely on."""
    response = ask(service, **asked)
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "application/json"
    whole: dict[str, Any] = response.json
    assert whole["object"] == "chat.completion"
    for choice in whole["choices"]:
        assert {"index", "message", "finish_reason", "logprobs"} <= choice.keys()
        assert choice["message"]["role"] == "assistant"
        assert {"content", "refusal"} <= choice["message"].keys()
        assert choice["finish_reason"]
    return whole
