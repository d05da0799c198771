"""A whole response as the events it would have been streamed as.

For an upstream that answers with one JSON object although a stream was asked for.
"""

from collections.abc import Iterator
from typing import Any

from streaming.sources import _response_failures

ENDS = {"completed": "response.completed", "incomplete": "response.incomplete"}


def events_of(response: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the events of a response, decoded.

    Raises the failure a response that failed tells, and `UpstreamBadResponse`
    for one that has not ended, or is none.
    """
    status = response.get("status")
    output = response.get("output")
    if status == "failed" or response.get("error"):
        raise _response_failures.failure_of_error(response.get("error"))
    if not isinstance(status, str) or status not in ENDS or not isinstance(output, list):
        raise _response_failures.no_response()
    begun = {**response, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for index, item in enumerate(output):
        if not isinstance(item, dict):
            raise _response_failures.no_response()
        yield from _item(item, index)
    yield {"type": ENDS[status], "response": response}


def _item(item: dict[str, Any], index: int) -> Iterator[dict[str, Any]]:
    at = {"item_id": item.get("id"), "output_index": index}
    empty: dict[str, list[object]] = {
        name: [] for name in ("content", "summary") if isinstance(item.get(name), list)
    }
    begun = {**item, **empty, **({"status": "in_progress"} if "status" in item else {})}
    yield {"type": "response.output_item.added", "output_index": index, "item": begun}
    for place, part in _parts(item, "summary"):
        in_summary = {**at, "summary_index": place}
        yield from _part(part, "response.reasoning_summary_part", "text", in_summary)
    for place, part in _parts(item, "content"):
        text_field = "refusal" if part.get("type") == "refusal" else "text"
        yield from _part(part, "response.content_part", text_field, {**at, "content_index": place})
    if (call := str(item.get("type"))) in _CALLS:
        kind, field = _CALLS[call]
        said = {field: item.get(field)}
        if isinstance(said[field], str):
            yield {"type": f"{kind}.delta", **at, "delta": said[field]}
        if field == "arguments":
            said["name"] = item.get("name")
        yield {"type": f"{kind}.done", **at, **said}
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def _part(part: dict[str, Any], name: str, text_field: str, at: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"type": f"{name}.added", **at, "part": {**part, text_field: ""}}
    kind = _KINDS.get(str(part.get("type")))
    text = part.get(text_field)
    if kind and isinstance(text, str):
        beside = {"logprobs": part.get("logprobs") or []} if part["type"] == "output_text" else {}
        yield {"type": f"{kind}.delta", **at, **beside, "delta": text}
        yield {"type": f"{kind}.done", **at, **beside, text_field: text}
    yield {"type": f"{name}.done", **at, "part": part}


_CALLS = {
    "function_call": ("response.function_call_arguments", "arguments"),
    "custom_tool_call": ("response.custom_tool_call_input", "input"),
}
_KINDS = {
    "output_text": "response.output_text",
    "refusal": "response.refusal",
    "reasoning_text": "response.reasoning_text",
    "summary_text": "response.reasoning_summary_text",
}


def _parts(item: dict[str, Any], name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    parts = item.get(name)
    for place, part in enumerate(parts if isinstance(parts, list) else ()):
        if isinstance(part, dict):
            yield place, part
