"""LangChain's own values as ours: calls, results, documents, usage, reasons to end."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_core.documents import Document as Found
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from streaming.events import Document, Sources, ToolCall, ToolResult
from streaming.runnables._readable import to_json
from streaming.runnables._tool_calls import bounded

MAX_RESULT_BYTES = 64 * 1024
MAX_ARGUMENT_BYTES = 256 * 1024
MAX_DOCUMENTS = 50
MAX_SNIPPET_CHARS = 500
MAX_TITLE_CHARS = 200
TITLES = ("title", "name", "source", "file_name", "file_path", "url")
SCORES = ("score", "relevance_score", "_score")
REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "STOP": "stop",
    "completed": "stop",
    "max_tokens": "length",
    "MAX_TOKENS": "length",
    "incomplete": "length",
    "tool_use": "tool_calls",
}
"""What other providers say, in OpenAI's words."""


def calls_of(message: BaseMessage) -> Iterable[ToolCall]:
    """Return the complete calls in a model's answer, and those whose arguments are no JSON object."""
    if not isinstance(message, AIMessage):
        return
    for call in message.tool_calls:
        yield ToolCall(_line(call.get("id")), _line(call["name"]), to_json(call["args"], MAX_ARGUMENT_BYTES))
    for wrong in message.invalid_tool_calls:
        arguments = _line(wrong.get("args"), MAX_ARGUMENT_BYTES)
        yield ToolCall(_line(wrong.get("id")), _line(wrong.get("name")), None, arguments)


def result_of(call_id: str, tool: str, output: Any) -> ToolResult:
    failed = isinstance(output, ToolMessage) and output.status == "error"
    outcome = bounded(output.content if isinstance(output, ToolMessage) else output, MAX_RESULT_BYTES)
    return ToolResult(call_id, tool, outcome.result, failed, outcome.truncated)


def sources_of(documents: Sequence[Found]) -> Sources:
    return Sources([_document(found) for found in documents[:MAX_DOCUMENTS] if isinstance(found, Found)])


def _document(found: Found) -> Document:
    metadata = found.metadata
    title = next((_line(metadata[name], MAX_TITLE_CHARS) for name in TITLES if metadata.get(name)), "")
    score = next((metadata[name] for name in SCORES if name in metadata), None)
    text = found.page_content
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
    return Document(
        _line(found.id or metadata.get("id") or digest),
        title,
        str(to_json(text[:MAX_SNIPPET_CHARS])) + ("…" if len(text) > MAX_SNIPPET_CHARS else ""),
        score=_finite(score),
    )


def usage_of(message: BaseMessage | None, llm_output: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return what a model used, by the names of chat completions."""
    counted = message.usage_metadata if isinstance(message, AIMessage) else None
    if counted is None:
        told = (llm_output or {}).get("token_usage")
        return to_json(dict(told)) if isinstance(told, Mapping) and told else None
    usage: dict[str, Any] = {
        "prompt_tokens": counted["input_tokens"],
        "completion_tokens": counted["output_tokens"],
        "total_tokens": counted["total_tokens"],
    }
    asked, said = counted.get("input_token_details") or {}, counted.get("output_token_details") or {}
    if (cached := asked.get("cache_read")) is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": cached}
    if (reasoning := said.get("reasoning")) is not None:
        usage["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return usage


def finish_reason_of(message: BaseMessage | None, generation_info: Mapping[str, Any] | None) -> str:
    """Return why a model ended, empty where it did not say."""
    said = {**(generation_info or {}), **(message.response_metadata if message is not None else {})}
    for name in ("finish_reason", "stop_reason", "done_reason", "status"):
        if isinstance(reason := said.get(name), str) and reason:
            return REASONS.get(reason, _line(reason))
    return ""


def _line(value: Any, max_chars: int = 200) -> str:
    return str(to_json(str(value or "")[:max_chars]))


def _finite(score: Any) -> float | None:
    try:
        found = to_json(float(score))
    except (TypeError, ValueError):
        return None
    return found if isinstance(found, float) else None
