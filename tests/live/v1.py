"""What the tests of ``/v1`` with real clients share: requests that carry a script, and plain answers."""

import itertools
import json
import re
from typing import Any

from tests.live.service import PATIENCE_SECONDS, EventReader, Service, wait_until

PATH = "/v1/chat/completions"
MODEL = "test-model"
# So many heartbeats come that an SDK which minds one of them would stumble.
MURMURING = {"HEARTBEAT_SECONDS": "0.2", "UPSTREAM_RETRIES": "0"}
SILENCES = {"headers_ms": 1000, "first_ms": 1500, "tokens": 2, "pace_ms": 1500}

_numbers = itertools.count(1)


def new_token() -> str:
    """Return a name under which the upstream logs one test's requests."""
    return f"v1-{next(_numbers)}"


def prompt(**script: Any) -> str:
    return f"<<{json.dumps(script)}>>"


def messages(**script: Any) -> list[Any]:
    return [{"role": "user", "content": prompt(**script)}]


def said_by(port: int, **body: Any) -> tuple[EventReader, list[str]]:
    """Ask whoever listens there for a stream; return the reader at its end and what each event held."""
    asked = {"model": MODEL, "stream": True} | body
    with EventReader(port).open(PATH, method="POST", body=asked) as reader:
        return reader, [event.data.decode() for event in reader]


def chunks_of(port: int, **body: Any) -> list[dict[str, Any]]:
    """Return the chunks of an answer that ends as it should."""
    reader, said = said_by(port, **body)
    assert (reader.status, said[-1]) == (200, "[DONE]"), (reader.status, said, bytes(reader.body))
    return [json.loads(one) for one in said[:-1]]


def with_roles(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return chunks with what a client cannot do without: a role in each choice's first delta."""
    begun: set[int] = set()
    for one in chunks:
        for choice in one["choices"]:
            if choice["index"] not in begun:
                choice["delta"].setdefault("role", "assistant")
            begun.add(choice["index"])
    return chunks


def text_of(chunks: list[dict[str, Any]]) -> str:
    return "".join(choice["delta"].get("content") or "" for one in chunks for choice in one["choices"])


def only_stream_of(service: Service) -> str:
    """Return the id of the one stream a service of the test's own has started."""
    started = wait_until(
        lambda: set(re.findall(r"\bst_[a-z2-7]{20,}", service.log_text())),
        PATIENCE_SECONDS,
        "a stream is started",
    )
    (stream_id,) = started
    return stream_id
