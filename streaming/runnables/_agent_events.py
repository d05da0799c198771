"""What the Agents SDK tells of a run as events of a stream."""

from collections.abc import Sequence
from typing import Any

import msgspec
from agents import (
    AgentUpdatedStreamEvent,
    HandoffOutputItem,
    RawResponsesStreamEvent,
    RunItemStreamEvent,
    StreamEvent,
    ToolCallItem,
    ToolCallOutputItem,
)
from agents.items import HandoffCallItem
from agents.run_config import ToolErrorFormatterArgs
from agents.usage import Usage as AgentUsage

from streaming.events import Event, Reasoning, StateUpdate, Token, ToolCall, ToolResult
from streaming.runnables._tool_calls import Outcome, bounded, failure_told

_decode = msgspec.json.Decoder(dict[str, Any]).decode
REASONING = ("response.reasoning_summary_text.delta", "response.reasoning_text.delta")


class AgentEvents:
    """Translates one run, in order."""

    def __init__(self, result_bytes: int) -> None:
        self._result_bytes = result_bytes
        self._tools: dict[str, str] = {}
        self._failed: set[str] = set()
        self._has_text = False
        self._spoke = False
        """There is text since the last tool was called."""

    def of(self, event: StreamEvent) -> Sequence[Event]:
        match event:
            case RawResponsesStreamEvent():
                return self._of_model(event.data)
            case AgentUpdatedStreamEvent():
                name = event.new_agent.name
                return [StateUpdate("updates", {"agent": name}, node=name)]
            case RunItemStreamEvent():
                return self._of_item(event.item)
        return []

    def final(self, output: Any) -> Sequence[Event]:
        """Return the answer of a run that no model has said: that of a tool at which an agent stops."""
        if self._spoke or output is None:
            return []
        outcome = bounded(output, self._result_bytes)
        text = (
            outcome.result
            if isinstance(outcome.result, str)
            else msgspec.json.encode(outcome.result).decode()
        )
        return [self._token(text)] if text else []

    def tool_failed(self, failure: ToolErrorFormatterArgs[Any]) -> str | None:
        """Return what the model is told of a tool that failed: a ``RunConfig.tool_error_formatter``."""
        self._failed.add(failure.call_id)
        if failure.kind != "tool_exception" or failure.error is None:
            return None
        return failure_told(failure.tool_name, failure.error)

    def _of_model(self, said: Any) -> Sequence[Event]:
        kind, delta = said.type, getattr(said, "delta", "")
        if not isinstance(delta, str) or not delta:
            return []
        if kind == "response.output_text.delta":
            return [self._token(delta)]
        if kind == "response.refusal.delta":
            return [self._token(delta, refusal=True)]
        return [Reasoning(_whole(delta))] if kind in REASONING else []

    def _token(self, text: str, refusal: bool = False) -> Token:
        # What is said after a tool's result is a paragraph of its own.
        text = "\n\n" + text if self._has_text and not self._spoke else text
        self._has_text = self._spoke = True
        return Token(_whole(text), refusal)

    def _of_item(self, item: Any) -> Sequence[Event]:
        match item:
            case ToolCallItem() | HandoffCallItem():
                self._spoke = False
                return [self._call(item.raw_item)]
            case ToolCallOutputItem():
                call_id = _field(item.raw_item, "call_id", "id")
                outcome = bounded(item.output, self._result_bytes)
                return [self._result(call_id, outcome._replace(failed=call_id in self._failed))]
            case HandoffOutputItem():
                to = Outcome({"agent": item.target_agent.name})
                return [self._result(_field(item.raw_item, "call_id"), to)]
        return []

    def _call(self, call: Any) -> ToolCall:
        call_id = _field(call, "call_id", "id")
        # Tools that run at the model's server have a type, and no name.
        tool = _field(call, "name") or _field(call, "type").removesuffix("_call")
        self._tools[call_id] = tool
        arguments = _field(call, "arguments", "input")
        try:
            return ToolCall(call_id, tool, _decode(arguments or "{}"), handled=True)
        except (msgspec.DecodeError, RecursionError):
            return ToolCall(call_id, tool, None, _whole(arguments), handled=True)

    def _result(self, call_id: str, outcome: Outcome) -> ToolResult:
        tool = self._tools.get(call_id, "")
        return ToolResult(call_id, tool, outcome.result, outcome.failed, outcome.truncated)


def usage_of(usage: AgentUsage) -> dict[str, Any] | None:
    """Return what all requests of a run used, by the names of OpenAI's Responses."""
    if not usage.requests or not usage.total_tokens:
        return None
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.input_tokens_details.cached_tokens or 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.output_tokens_details.reasoning_tokens or 0},
        "total_tokens": usage.total_tokens,
    }


def _field(item: Any, *names: str) -> str:
    """Return the first of these fields that is a text; items are models, or dicts."""
    for name in names:
        value = item.get(name) if isinstance(item, dict) else getattr(item, name, None)
        if isinstance(value, str) and value:
            return _whole(value)
    return ""


def _whole(text: str) -> str:
    """Replace halves of characters, which cannot be stored, by U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
