"""ChatKit's protocol, nearly right: an answer in its own shape, or a refusal that names the field."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from streaming import sse
from streaming.chatkit import loading
from streaming.errors import InvalidRequest, NotFound, StreamingError
from streaming.events import json_line
from streaming.settings import Settings
from streaming.streams import Order, Streams
from streaming.web import _chatkit_orders as orders
from tests import fuzz_places
from tests.fuzz_places import fixture_of
from tests.fuzzing import TEXTS, attempt, fuzzed, json_values, near, request_of

NAMES = st.one_of(
    st.sampled_from("content text type input_text input_tag id data model tool_choice values x a.b".split()),
    TEXTS,
)
WRONG = json_values(NAMES, st.one_of(TEXTS, st.none(), st.booleans(), st.integers(), st.floats(-9, 9)))
SAID = {"content": [{"type": "input_text", "text": "hi"}], "attachments": [], "inference_options": {}}
RIGHT: dict[str, dict[str, Any]] = {
    "threads.get_by_id": {"thread_id": "THREAD"},
    "threads.create": {"input": SAID},
    "threads.list": {},
    "threads.add_user_message": {"thread_id": "THREAD", "input": SAID},
    "threads.add_client_tool_output": {"thread_id": "THREAD", "result": {}},
    "threads.add_structured_input": {"thread_id": "THREAD", "item_id": "ITEM", "input": {"answers": {}}},
    "threads.custom_action": {"thread_id": "THREAD", "action": {"type": "a", "payload": {}}},
    "threads.sync_custom_action": {"thread_id": "THREAD", "action": {"type": "a", "payload": {}}},
    "threads.retry_after_item": {"thread_id": "THREAD", "item_id": "ITEM"},
    "items.feedback": {"thread_id": "THREAD", "item_ids": ["ITEM"], "kind": "positive"},
    "attachments.delete": {"attachment_id": "a"},
    "attachments.create": {"name": "a", "size": 1, "mime_type": "text/plain"},
    "input.transcribe": {"audio_base64": "AAAA", "mime_type": "audio/webm"},
    "items.list": {"thread_id": "THREAD"},
    "threads.update": {"thread_id": "THREAD", "title": "t"},
    "threads.delete": {"thread_id": "THREAD"},
}
KINDS = tuple(RIGHT)
IDS = st.one_of(st.sampled_from(["THREAD", "ITEM", "", "x" * 128, "x" * 129, "th_none", "\0"]), TEXTS)
CONTENT = near(
    [{"type": "input_text", "text": "hi"}, {"type": "input_tag", "id": "a", "text": "hi", "data": {}}],
    {"type": TEXTS, "text": TEXTS, "data": WRONG, "interactive": WRONG},
    WRONG,
)
INPUT = near(
    [SAID],
    {
        "content": st.lists(CONTENT, max_size=3),
        "attachments": st.one_of(st.lists(TEXTS, max_size=2), WRONG),
        "quoted_text": st.one_of(st.none(), TEXTS),
        "inference_options": near(
            [{}], {"model": st.sampled_from(["demo", "", "none"]), "tool_choice": WRONG}, WRONG
        ),
    },
    WRONG,
)
FIELDS: dict[str, Any] = {
    "thread_id": IDS,
    "item_id": IDS,
    "item_ids": st.lists(IDS, max_size=3),
    "kind": st.sampled_from(["positive", "negative", "x"]),
    "after": IDS,
    "limit": st.sampled_from([0, 1, -1, 10**9, 2**63, 2**70, 10**400, "5", 1.5, None]),
    "order": st.sampled_from(["asc", "desc", "up", None]),
    "title": st.one_of(TEXTS, st.just("t" * 300)),
    "input": INPUT,
    "result": WRONG,
    "action": near([{"type": "a", "payload": {}}], {"type": TEXTS, "handler": TEXTS}, WRONG),
    "name": TEXTS,
    "size": st.sampled_from([0, -1, 2**70, 10**400]),
    "mime_type": TEXTS,
    "attachment_id": IDS,
    "audio_base64": st.one_of(TEXTS, st.just("AAAA"), st.just("A")),
    "status": st.sampled_from(["answered", "skipped", "x"]),
    "answers": st.dictionaries(TEXTS, near([{"values": ["a"]}], {"skipped": WRONG}, WRONG), max_size=2),
}
REQUESTS = st.one_of(
    *(
        st.builds(
            lambda kind, params, more: {"type": kind, "params": params, **more},
            st.just(kind),
            near([params], FIELDS, WRONG),
            st.one_of(st.just({}), st.just({}), st.builds(lambda value: {"metadata": value}, WRONG)),
        )
        for kind, params in RIGHT.items()
    ),
    near(
        [{"type": "threads.list", "params": {}}], {"type": TEXTS, "params": WRONG, "metadata": WRONG}, WRONG
    ),
)
OF_THE_WHOLE = frozenset({"json", "too_deep", "too_large", "content_type", "origin"})


class Counter:
    """The place where ChatKit is served: its threads are there, its answers are not begun."""

    def __init__(self, app: Flask) -> None:
        loading.load("streaming.chatkit.service")
        from streaming.chatkit.service import ChatKit

        self.settings = Settings(demo_tokens_per_second=0, eventlog_url="memory://", runnables=("none",))
        self.streams: Streams = app.extensions["streams"]
        self.app = app
        self.chatkit = ChatKit(self.streams, self.settings)
        self.thread_id = self.item_id = ""
        self._uses = 0

    def ask(self, asked: Any) -> Any:
        """Return what is answered: JSON, or the data of each event."""
        with self.request(json.dumps(asked).encode()) as context:
            return self._answer(orders.read_message(context.request, self.settings))

    def request(self, body: bytes, path: str = "/chatkit", query: Any = None) -> Any:
        more = {"method": "POST", "data": body, "content_type": "application/json"}
        return request_of(self.app, {}, query, path=path, **more)

    def renew(self) -> None:
        """Have a thread with few items in it."""
        self._uses += 1
        if self._uses % 10 == 1 or self._is_gone():
            if self.thread_id and not self._is_gone():
                self.ask({"type": "threads.delete", "params": {"thread_id": self.thread_id}})
            told = [
                json.loads(each) for each in self.ask({"type": "threads.create", "params": {"input": SAID}})
            ]
            self.thread_id = told[0]["thread"]["id"]
            self.item_id = next(each["item"]["id"] for each in told if each["type"] == "thread.item.done")

    def _is_gone(self) -> bool:
        try:
            self.streams.threads.store.get(self.thread_id)
        except NotFound:
            return True
        return False

    def _answer(self, message: dict[str, Any]) -> Any:
        from streaming.chatkit.visits import Visit

        visit = Visit("somebody", refuse_order)
        answered = self.chatkit.answer(message, visit)
        if isinstance(answered, bytes):
            return json.loads(answered)
        try:
            return [data for data in answered if data is not None]
        finally:
            answered.finish()


def refuse_order(question: Any) -> Order:
    json_line({"messages": question.messages, "resume": question.resume, "model": question.model})
    raise InvalidRequest("no answers are made here", code="not_here", param="input")


@contextmanager
def open_counter() -> Iterator[Counter]:
    with fuzz_places.open_app() as app, app.app_context():
        yield Counter(app)


fuzz_places.PLACES["counter"] = open_counter
counter = fixture_of("counter")


def with_ids(value: Any, ids: dict[str, str]) -> Any:
    """Return a request about what is there."""
    if isinstance(value, dict):
        return {name: with_ids(each, ids) for name, each in value.items()}
    if isinstance(value, list):
        return [with_ids(each, ids) for each in value]
    return ids.get(value, value) if isinstance(value, str) else value


@fuzzed(60)
@given(REQUESTS)
def test_a_request_of_the_protocol_is_answered_or_refused_by_field(counter: Counter, asked: Any) -> None:
    counter.renew()
    asked = with_ids(asked, {"THREAD": counter.thread_id, "ITEM": counter.item_id})
    answer, error = attempt(lambda: counter.ask(asked), StreamingError)
    if error is not None:
        assert error.status < 500
        assert len(str(error)) < 2000
        if isinstance(asked, dict) and error.code not in OF_THE_WHOLE and error.status != 404:
            assert error.param, f"no field is named: {error!r}"
        json_line(error.info())
        return
    if isinstance(answer, dict):
        return
    assert answer, "an answer without an event"
    for data in answer:
        told = json.loads(data)
        assert isinstance(told["type"], str)
        assert told["type"] != "error" or told["code"] == "custom", (
            "a failure that is not told in words of ours"
        )
        assert sse.frame(data).count(b"\n") == 2, "one event, on one line"


HOSTED = near(
    [{}, {"user": "ana"}],
    {
        "user": st.one_of(TEXTS, st.sampled_from(["x" * 128, "x" * 129, "a b", "é", ""])),
        "thread_id": TEXTS,
        "client_secret": TEXTS,
        "currentClientSecret": WRONG,
    },
    WRONG,
)


@fuzzed(200)
@given(HOSTED)
def test_a_hosted_session_is_asked_for_or_refused_by_field(counter: Counter, asked: Any) -> None:
    with counter.request(json.dumps(asked).encode(), "/chatkit/session") as context:
        hosted, error = attempt(lambda: orders.read_hosted(context.request, counter.settings))
    if error is not None:
        assert error.param is not None or not isinstance(asked, dict)
        assert len(str(error)) < 1000
        return
    for name in ("user", "thread_id", "client_secret", "currentClientSecret"):
        assert getattr(hosted, name) == asked.get(name)


@fuzzed(200)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["source", "on_disconnect", "x"]),
            st.one_of(st.sampled_from(["chat", "demo", "cancel", "grace", "continue"]), TEXTS),
        ),
        max_size=3,
    )
)
def test_the_page_that_shows_it_says_what_it_may(counter: Counter, query: list[tuple[str, str]]) -> None:
    with counter.request(b"{}", query=query) as context:
        page, error = attempt(lambda: orders.read_page(context.request, counter.settings, counter.streams))
    if error is not None:
        assert error.param in ("source", "on_disconnect", "x")
        return
    asked = dict(reversed(query))
    assert page.source == asked.get("source", counter.settings.chatkit_source)
    assert page.on_disconnect == asked.get("on_disconnect", counter.settings.chatkit_on_disconnect)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_request_is_known(counter: Counter, kind: str) -> None:
    _, error = attempt(lambda: counter.ask({"type": kind, "params": {}}), StreamingError)
    assert error is None or error.code != "unknown_type"
