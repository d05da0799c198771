"""Streams of OpenAI chunks as servers send them, the odd ones too."""

from typing import Any

HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "m-1"}


def chunk(
    delta: Any = None, /, finish: str | None = None, choice: Any = None, **fields: Any
) -> dict[str, Any]:
    """Return a chunk of one choice, as OpenAI has it."""
    return {
        **HEAD,
        "choices": [
            {"index": 0, "delta": {} if delta is None else delta, "finish_reason": finish} | (choice or {})
        ],
    } | fields


def says(text: str, **more: Any) -> dict[str, Any]:
    return chunk({"content": text} | more)


def as_json(value: Any) -> Any:
    """Make values that are the same JSON equal, and others not: ``1`` is not ``true``."""
    if isinstance(value, dict):
        return {name: as_json(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [as_json(inner) for inner in value]
    if isinstance(value, bool) or value is None:
        return repr(value)
    return value


CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": ""}}


def fragment(arguments: str, index: int = 0) -> dict[str, Any]:
    return chunk({"tool_calls": [{"index": index, "function": {"arguments": arguments}}]})


LOGPROBS = {
    "content": [{"token": "Hel", "logprob": -0.25, "bytes": [72], "top_logprobs": []}],
    "refusal": None,
}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "details": {"cached": None}}

STREAMS: dict[str, list[dict[str, Any]]] = {
    "plain": [
        chunk({"role": "assistant", "content": "", "refusal": None}),
        says("Hel"),
        says("lo"),
        chunk(finish="stop"),
    ],
    "the usage at the end": [says("Hi"), chunk(finish="stop"), {**HEAD, "choices": [], "usage": USAGE}],
    "usage null in each": [
        *(one | {"usage": None} for one in (says("Hi"), says(" there"), chunk(finish="stop"))),
        {**HEAD, "choices": [], "usage": USAGE},
    ],
    "usage in each": [
        says(
            "Hi",
        )
        | {"usage": USAGE},
        says("!") | {"usage": USAGE | {"total_tokens": 6}},
    ],
    "usage in the last": [says("Hi"), chunk(finish="stop", usage=USAGE)],
    "the usage first": [{**HEAD, "choices": [], "usage": USAGE}, says("Hi"), chunk(finish="stop")],
    "log-probabilities": [
        chunk({"role": "assistant", "content": ""}, choice={"logprobs": None}),
        chunk({"content": "Hel"}, choice={"logprobs": LOGPROBS}),
        chunk({"content": "lo"}, choice={"logprobs": None}),
        chunk({"content": "!"}),
    ],
    "tier and fingerprint change": [
        says("a") | {"service_tier": "default", "system_fingerprint": "fp_1"},
        says("b") | {"service_tier": "default", "system_fingerprint": "fp_1"},
        says("c") | {"service_tier": "flex", "system_fingerprint": None},
        says("d") | {"service_tier": "default"},
        says("e") | {"system_fingerprint": "fp_1", "service_tier": "default"},
        says("f"),
    ],
    "every field of the head changes": [
        says("a"),
        says("b") | {"id": "other", "created": 1, "model": "m-2", "object": "x"},
        says("c"),
    ],
    "unknown fields everywhere": [
        chunk({"content": "a", "x": 1}, choice={"y": [1, {"z": None}]}, w={"deep": {"er": []}}),
        chunk({"content": "b", "x": 2}, choice={"y": []}, w=None),
        chunk({"content": "c"}, choice={"new": True}, newer=False),
        says("d"),
    ],
    "obfuscation": [says("a") | {"obfuscation": "qwe"}, says("b") | {"obfuscation": "asd"}],
    "reasoning, then text": [
        chunk({"role": "assistant", "reasoning_content": "Let me", "content": None}),
        chunk({"reasoning_content": " think", "content": None}),
        chunk({"content": "Hi", "reasoning_content": None}),
        chunk(finish="stop"),
    ],
    "reasoning and text in one": [
        chunk({"reasoning_content": "hm", "content": "Hi", "x": 1}),
        chunk({"reasoning_content": "m", "content": "!", "x": 2}),
        chunk({"content": "?", "reasoning_content": ""}),
    ],
    "reasoning by its other name": [
        chunk({"reasoning": "hm", "reasoning_details": [{"text": "hm"}]}),
        says("Hi"),
    ],
    "a refusal": [
        chunk({"role": "assistant", "content": ""}),
        chunk({"refusal": "I"}),
        chunk({"refusal": " won't"}),
    ],
    "text and a refusal": [chunk({"content": "a", "refusal": "b"})],
    "a call in fragments": [
        chunk({"role": "assistant", "content": None, "tool_calls": [CALL]}),
        fragment('{"ci'),
        fragment('ty":"Köln"}'),
        chunk(finish="tool_calls"),
    ],
    "parallel calls": [
        chunk({"role": "assistant", "content": None}),
        chunk({"tool_calls": [CALL]}),
        fragment("{}"),
        chunk({"tool_calls": [CALL | {"index": 1, "id": "call_2"}]}),
        fragment('{"a":', 1),
        fragment("1}", 1),
        chunk(finish="tool_calls"),
    ],
    "parallel calls, interleaved": [
        chunk({"tool_calls": [CALL, CALL | {"index": 1, "id": "call_2"}]}),
        fragment('{"a"', 0),
        fragment('{"b"', 1),
        fragment(":1}", 0),
        fragment(":2}", 1),
        chunk(finish="tool_calls"),
    ],
    "a whole call at once": [
        chunk(
            {"content": "see", "tool_calls": [CALL | {"function": {"name": "f", "arguments": "{}"}}]},
            finish="stop",
        )
    ],
    "a call without an index": [
        chunk({"tool_calls": [{"id": "call_1", "function": {"name": "f", "arguments": '{"a":1}'}}]}),
        chunk({"tool_calls": [{"id": "call_2", "function": {"name": "g", "arguments": "{}"}}]}),
        chunk(finish="tool_calls"),
    ],
    "two choices": [
        chunk({"content": "a"}),
        chunk({"content": "b"}, choice={"index": 1}),
        {
            **HEAD,
            "choices": [{"index": 0, "delta": {"content": "c"}}, {"index": 1, "delta": {"content": "d"}}],
        },
        chunk({"content": "e"}),
    ],
    "two choices in the first": [
        {
            **HEAD,
            "choices": [{"index": 0, "delta": {"content": "a"}}, {"index": 1, "delta": {"content": "b"}}],
        },
        chunk({"content": "c"}),
        chunk({"content": "d"}, choice={"index": 1}),
    ],
    "the other choice first": [chunk({"content": "a"}, choice={"index": 1}), chunk({"content": "b"})],
    "text in the first": [chunk({"role": "assistant", "content": "Hel"}), says("lo")],
    "all in one": [chunk({"role": "assistant", "content": "Hello"}, finish="stop", usage=USAGE)],
    "Azure's filter first": [
        {
            "choices": [],
            "created": 0,
            "id": "",
            "model": "",
            "object": "",
            "prompt_filter_results": [{"index": 0}],
        },
        chunk({"role": "assistant", "content": ""}, choice={"content_filter_results": {}}),
        chunk({"content": "Hi"}, choice={"content_filter_results": {"hate": {"filtered": False}}}),
        chunk(finish="stop"),
        {**HEAD, "choices": [], "usage": USAGE},
    ],
    "no choices in the middle": [says("a"), {**HEAD, "choices": [], "x_heartbeat": 1}, says("b")],
    "a null delta": [says("a"), chunk(choice={"delta": None}), says("b")],
    "a null delta first": [chunk(choice={"delta": None}), says("b")],
    "no delta": [says("a"), {**HEAD, "choices": [{"index": 0, "finish_reason": "stop"}]}],
    "no index": [
        {**HEAD, "choices": [{"delta": {"content": "a"}}]},
        {**HEAD, "choices": [{"delta": {"content": "b"}}]},
    ],
    "an index sometimes": [{**HEAD, "choices": [{"delta": {"content": "a"}}]}, says("b"), says("c")],
    "null fields": [
        chunk({"content": None, "tool_calls": None, "function_call": None, "role": None}),
        says("a", tool_calls=None),
    ],
    "a list of choices that is null": [says("a"), {**HEAD, "choices": None, "usage": USAGE}],
    "no list of choices": [says("a"), {**HEAD, "usage": USAGE}],
    "no list of choices first": [{**HEAD, "usage": None}, says("a"), says("b")],
    "no list of choices first, with an error field": [{**HEAD, "error": None}, says("a")],
    "empty text": [says(""), says("a"), says(""), chunk({"content": ""}, finish="stop")],
    "odd text": [says("a\r\n\u2028\u0085\0\ufeff"), says('"\\/\b\f'), says("😀 e\u0301")],
    "odd names": [says("a") | {"chunk.id": 1, "": 2, "choices ": 3}, says("b")],
    "truth and numbers": [
        says("a") | {"x": 1, "y": True, "z": 0},
        says("b") | {"x": True, "y": 1, "z": False},
        says("c") | {"x": 1.5, "y": None, "z": ""},
    ],
    "large numbers": [
        says("a") | {"x": 2**62, "y": -(2**63)},
        says("b") | {"x": 10**30},
        says("c") | {"x": 1e308},
    ],
    "extra content": [
        chunk(
            {"content": "a", "extra_content": {"google": {"thought": True}}},
            choice={"matched_stop": None, "stop_reason": 3},
        )
    ],
}
