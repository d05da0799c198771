"""What clients order, nearly right: taken as it is, or refused with the name of the field at fault."""

import json
from typing import Any

import msgspec
import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from streaming.errors import InvalidRequest
from streaming.events import json_line
from streaming.streams import Order
from streaming.web import _langserve_orders, _orders, _runnable_orders
from tests.fuzz_places import Kitchen, fixture_of
from tests.fuzzing import TEXTS, attempt, fuzzed, json_values, near, request_of

client = fixture_of("client")

WORDS = st.sampled_from(
    "user assistant tool human ai AIMessageChunk text image_url modal plain events values thread_id x".split()
)
NAMES = st.one_of(
    st.sampled_from(
        "role type content text image_url url messages configurable thread_id tags called x a.b `".split()
    ),
    TEXTS,
)
WRONG = json_values(NAMES, st.one_of(WORDS, TEXTS, st.none(), st.booleans(), st.integers(), st.floats(-9, 9)))
THREADS = st.one_of(
    st.text("aZ09._:-", min_size=1, max_size=6),
    st.sampled_from([".", "..", "...", "a/b", "%2e", "a b", "é", "a\n", "", "x" * 128, "x" * 129, "\0"]),
    TEXTS,
)
PARTS = near(
    [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "https://a.b/c.png"}}],
    {
        "type": WORDS,
        "text": TEXTS,
        "image_url": near(
            [{"url": "data:image/png;base64,AA=="}],
            {
                "url": st.sampled_from(
                    ["http://[", "https://u:p@h/", "data:text/html,x", "ftp://x", "https://a\n"]
                )
            },
            WRONG,
        ),
    },
    WRONG,
)
MESSAGES = st.lists(
    near(
        [{"role": "user", "content": "hi"}, {"type": "human", "content": "hi"}, {"role": "assistant"}],
        {
            "role": WORDS,
            "type": WORDS,
            "content": st.one_of(TEXTS, st.lists(PARTS, max_size=2)),
            "name": TEXTS,
        },
        WRONG,
    ),
    max_size=3,
)
INPUTS = st.one_of(TEXTS, MESSAGES, st.builds(lambda found: {"messages": found}, MESSAGES), WRONG)
CONFIGS = near(
    [{}, {"tags": ["a"]}, {"configurable": {"thread_id": "t1"}}, {"recursion_limit": 5}],
    {
        "tags": st.lists(TEXTS, max_size=3),
        "metadata": st.dictionaries(NAMES, WRONG, max_size=2),
        "recursion_limit": st.sampled_from([0, 1, 1000, 1001, -1, True, 2**70, 1.5]),
        "configurable": near([{}], {"thread_id": THREADS, "called": TEXTS, "base_url": TEXTS}, WRONG),
        "callbacks": WRONG,
    },
    WRONG,
)
CREATES = near(
    [
        {"prompt": "hi"},
        {"messages": [{"role": "user", "content": "hi"}]},
        {"source": "modal", "input": {"a": 1}},
        {"source": "plain", "prompt": "hi"},
    ],
    {
        "prompt": TEXTS,
        "messages": MESSAGES,
        "source": st.sampled_from(["chat", "responses", "modal", "plain", "demo", "", "nope" * 99]),
        "model": st.sampled_from(["demo", "modal", "", "x" * 300, "\0"]),
        "instructions": TEXTS,
        "params": near(
            [{}, {"temperature": 1}],
            {
                "temperature": st.sampled_from([0, 2, 2.1, -0.1, 10**400, -0.0]),
                "max_tokens": st.sampled_from([0, 1, -1, 2**63, 1.5]),
                "n": st.sampled_from([1, 2, True, 1.0]),
                "stop": st.one_of(TEXTS, st.lists(TEXTS, max_size=2)),
                "tools": st.lists(WRONG, max_size=2),
                "metadata": st.dictionaries(NAMES, TEXTS, max_size=2),
            },
            WRONG,
        ),
        "on_disconnect": st.sampled_from(["grace", "cancel", "continue", "Grace", ""]),
        "message_id": TEXTS,
        "timeout_seconds": st.sampled_from([0, -1, 5, 1e308, 10**400, 5e-324]),
        "continues": TEXTS,
        "input": INPUTS,
        "thread": THREADS,
        "follows": TEXTS,
        "replaces": TEXTS,
        "mode": st.one_of(WORDS, st.lists(WORDS, max_size=3)),
        "config": CONFIGS,
        "base_url": TEXTS,
    },
    WRONG,
)


kitchen = fixture_of("kitchen")

OF_THE_WHOLE = frozenset({"json", "too_deep", "too_large", "content_type", "origin"})


def check_refusal(error: Any, asked: Any = ()) -> None:
    """Check that a refusal of ``asked`` names the field at fault, and repeats little of what was sent."""
    assert str(error)
    assert len(str(error)) < 2000
    assert error.status < 500
    if error.code not in OF_THE_WHOLE and isinstance(asked, dict | list):
        assert error.param is not None, f"no field is named: {error}"
    assert len(error.param or "") < 300
    json_line(error.info())


def check_order(order: Order) -> None:
    """Check that an order can be kept, and is the same afterwards."""
    prompt = msgspec.json.encode(order.prompt)
    again = msgspec.json.decode(prompt, type=type(order.prompt))
    assert msgspec.json.encode(again) == prompt
    assert json_line(order.asked)
    assert order.fingerprint == "" or len(order.fingerprint) == 64


def posted(kitchen: Kitchen, body: bytes, key: str | None = None) -> Any:
    headers = {} if key is None else {"Idempotency-Key": key}
    more = {"method": "POST", "data": body, "content_type": "application/json"}
    return request_of(kitchen.app, headers, **more)


KEYS = st.one_of(st.none(), TEXTS, st.sampled_from(["k", "", "x" * 255, "x" * 256, "a b", "é"]))


@fuzzed(120)
@given(CREATES, KEYS)
def test_a_run_is_ordered_or_refused_by_field(kitchen: Kitchen, asked: Any, key: str | None) -> None:
    found = []
    # The same fields in another order, and written in another way, are the same order.
    for body in (json.dumps(asked), json.dumps(backwards(asked), indent=1, ensure_ascii=True)):
        with posted(kitchen, body.encode(), key) as context:
            order, error = attempt(
                lambda request=context.request: _orders.from_body(request, kitchen.settings, kitchen.streams)
            )
        if error is not None:
            check_refusal(error, asked if isinstance(asked, dict) else None)
            return
        check_order(order)
        found.append(order)
    assert found[0].fingerprint == found[1].fingerprint
    assert found[0].key == found[1].key
    assert found[0].prompt == found[1].prompt


def backwards(value: Any) -> Any:
    """Return a JSON value whose objects have their fields the other way round."""
    if isinstance(value, dict):
        return {name: backwards(value[name]) for name in reversed(value)}
    return [backwards(each) for each in value] if isinstance(value, list) else value


QUERY_FIELDS = st.sampled_from(
    "prompt model message_id instructions source thread follows replaces on_disconnect after wait x".split()
)


@fuzzed(120)
@given(st.lists(st.tuples(QUERY_FIELDS, st.one_of(TEXTS, THREADS, WORDS)), max_size=5))
def test_a_run_is_ordered_by_an_address_or_refused_by_field(kitchen: Kitchen, query: list[Any]) -> None:
    query = [("prompt", "hi"), *query]
    with request_of(kitchen.app, {}, query, path="/stream") as context:
        order, error = attempt(lambda: _orders.from_query(context.request, kitchen.settings, kitchen.streams))
    if error is not None:
        check_refusal(error)
        return
    check_order(order)
    assert order.key is None or order.key.startswith("GET /stream ")


LANGSERVE = near(
    [{"input": "hi"}, {"input": {"question": "hi"}, "config": {}, "kwargs": {}}, {"inputs": ["a", "b"]}],
    {
        "input": INPUTS,
        "inputs": st.lists(INPUTS, max_size=3),
        "config": st.one_of(CONFIGS, st.lists(CONFIGS, max_size=3)),
        "kwargs": near([{}, {"headers": {}}], {"headers": WRONG, "stop": TEXTS}, WRONG),
        "include_names": st.lists(TEXTS, max_size=2),
        "exclude_types": WRONG,
    },
    WRONG,
)


@fuzzed(120)
@given(
    LANGSERVE,
    st.sampled_from(["modal", "plain"]),
    st.sampled_from(["output", "chunks", "events", "batch"]),
    KEYS,
)
def test_a_runnable_is_asked_as_langserve_is_or_refused_by_field(
    kitchen: Kitchen, asked: Any, name: str, mode: str, key: str | None
) -> None:
    runnable = kitchen.streams.registered[name]
    with posted(kitchen, json.dumps(asked).encode(), key) as context:
        if mode == "batch":
            read: Any = lambda: _langserve_orders.read_batch(context.request, kitchen.settings, runnable)  # noqa: E731
        else:
            read = lambda: [_langserve_orders.read_one(context.request, kitchen.settings, runnable, mode)]  # noqa: E731
        orders, error = attempt(read)
    if error is not None:
        if not (error.code == "unknown_mode" and name == "plain"):
            check_refusal(error, asked if isinstance(asked, dict) else None)
        return
    for order in orders:
        check_order(order)
        assert order.source == name
        assert order.prompt.modes in ((), (mode,), ("output",))
        configurable = order.prompt.config.get("configurable", {})
        assert set(configurable) <= (runnable.configurable or frozenset()), "nobody declared that"
        assert set(order.prompt.config) <= set(_runnable_orders.CONFIG)
        if order.prompt.thread:
            assert _runnable_orders.check_thread(order.prompt.thread) == order.prompt.thread


@pytest.mark.parametrize(
    ("asked", "param", "code"),
    [
        ({"prompt": "a", "on_disconnect": "x" * 100_000}, "on_disconnect", "wrong_type"),
        ({"a\nb": 1}, "a\nb", "unknown_field"),
        ({"a\n" + "x" * 100_000: 1}, "a\n" + "x" * 98, "unknown_field"),
        ({"params": {"a\nb": 1}}, "params.a\nb", "unknown_field"),
        ({"prompt": {"x": 1}}, "prompt", "wrong_type"),
        ([], None, "wrong_type"),
    ],
)
def test_a_refusal_names_the_field_and_repeats_little(
    client: FlaskClient, asked: Any, param: str | None, code: str
) -> None:
    answer = client.post("/streams", json=asked)
    assert answer.status_code == 400
    assert (answer.json["error"]["param"], answer.json["error"]["code"]) == (param, code)
    assert len(answer.data) < 1000


def test_a_field_that_is_missing_is_named(kitchen: Kitchen) -> None:
    runnable = kitchen.streams.registered["modal"]
    with posted(kitchen, b"{}") as context, pytest.raises(InvalidRequest, match="input: it is") as refused:
        _langserve_orders.read_one(context.request, kitchen.settings, runnable, "output")
    assert (refused.value.param, refused.value.code) == ("input", "required")
