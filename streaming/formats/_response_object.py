"""The Response object of OpenAI's Responses, apart from its output.

Source: OpenAI API reference, "The response object".
"""

from typing import Any

from streaming.errors import ErrorInfo
from streaming.events import Start
from streaming.openai_errors import error_object

JSON = dict[str, Any]

_ECHOED: JSON = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "auto",
    "store": True,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "truncation": "disabled",
}
"""What a response repeats of its request, and what stands there when nothing was asked."""
_ECHOED_IF_GIVEN = ("prompt", "top_logprobs", "user")
ECHOED = frozenset(_ECHOED).union(_ECHOED_IF_GIVEN)
_OURS: JSON = {"background": False, "previous_response_id": None, "store": True}
"""What is kept, and for how long, is said here and not by the upstream."""


def response_id(stream_id: str) -> str:
    """Return the id that clients of this dialect know a stream by.

    >>> response_id("st_abc")
    'resp_abc'
    """
    return f"resp_{stream_id.removeprefix('st_')}"


def new_response(start: Start, asked: JSON) -> JSON:
    """Return a response that has just begun; ``asked`` is what its request said."""
    response: JSON = {
        "id": response_id(start.stream_id),
        "object": "response",
        "created_at": start.created,
        "status": "in_progress",
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "model": start.model,
        "output": [],
    }
    response |= {
        name: default if asked.get(name) is None else asked[name] for name, default in _ECHOED.items()
    }
    response |= {name: asked[name] for name in _ECHOED_IF_GIVEN if asked.get(name) is not None}
    response["text"] = {**_ECHOED["text"], **response["text"]}
    response["reasoning"] = {**_ECHOED["reasoning"], **response["reasoning"]}
    response["tools"] = [_tool(tool) for tool in response["tools"]]
    return response


def as_ours(response: JSON, start: Start, asked: JSON) -> JSON:
    """Return the upstream's response with our id, and with what the client asked of us."""
    kept = {name: default if asked.get(name) is None else asked[name] for name, default in _OURS.items()}
    if asked.get("metadata") is not None:
        kept["metadata"] = asked["metadata"]
    return {**response, "id": response_id(start.stream_id), **kept}


def response_usage(usage: JSON) -> JSON:
    """Return usage by the names of this dialect; chat completions have others."""
    asked = _count(usage.get("input_tokens", usage.get("prompt_tokens")))
    said = _count(usage.get("output_tokens", usage.get("completion_tokens")))
    total = usage.get("total_tokens")
    rest = {name: value for name, value in usage.items() if name not in _CHAT_USAGE}
    return {
        **rest,
        "input_tokens": asked,
        "input_tokens_details": {
            "cached_tokens": 0,
            "cache_write_tokens": 0,
            **_counts(usage.get("input_tokens_details") or usage.get("prompt_tokens_details")),
        },
        "output_tokens": said,
        "output_tokens_details": {
            "reasoning_tokens": 0,
            **_counts(usage.get("output_tokens_details") or usage.get("completion_tokens_details")),
        },
        "total_tokens": total if isinstance(total, int) else asked + said,
    }


_CHAT_USAGE = frozenset(
    "prompt_tokens completion_tokens prompt_tokens_details completion_tokens_details".split()
)


def response_error(info: ErrorInfo) -> JSON:
    """Return what stands under ``error`` of a failed response; its ``code`` is one of OpenAI's list."""
    kind = error_object(info)["type"]
    if kind in ("rate_limit_error", "insufficient_quota"):
        code = "rate_limit_exceeded"
    else:
        code = "invalid_prompt" if kind == "invalid_request_error" else "server_error"
    return {
        "code": code,
        "message": info.message,
        "type": info.type,
        "retryable": info.retryable,
        "request_id": info.request_id,
    }


def error_event(info: ErrorInfo) -> JSON:
    """Return an event for what keeps one reader from going on; the run may go on without it.

    The error stands in it twice: by the schema, and under ``error``, as OpenAI
    sends it, where the SDKs raise it.
    """
    error = error_object(info)
    flat = {name: error[name] for name in ("code", "message", "param")}
    return {"type": "error", **flat, "error": error}


def _tool(tool: JSON) -> JSON:
    if tool.get("type") != "function":
        return tool
    return {"strict": None, "parameters": None, **tool}


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0


def _counts(details: object) -> JSON:
    """Leave out what is null: here every count is a number."""
    if not isinstance(details, dict):
        return {}
    return {name: value for name, value in details.items() if value is not None}
