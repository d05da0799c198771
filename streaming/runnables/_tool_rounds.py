"""What a model is asked in each round of a tool loop, in the dialect it is asked in."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from streaming.errors import InvalidRequest
from streaming.events import Chunk, Reasoning, ResponseEvent, Token, ToolCall, ToolResult
from streaming.runnables._functions import Function
from streaming.sources import Prompt

JSON = dict[str, Any]
# They would ask for calls that nobody here can make, or for more answers than a loop can go on with.
NOT_HERE = {
    "tools": "this runnable has tools of its own",
    "functions": "this runnable has tools of its own",
    "function_call": "this runnable has tools of its own",
    "n": "a loop of tool calls has one answer",
}
# Some servers want it back with the results; it comes only from those that have it.
RESENT_REASONING = "reasoning_content"
OF_EVERY_CALL = ("index", "id", "type", "function")
ENCRYPTED = "reasoning.encrypted_content"


class Round:
    """What the model said in one round."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._beside: dict[str, JSON] = {}
        self.calls: list[ToolCall] = []
        """Those to be answered here."""
        self.beside: list[JSON] = []
        """What each of them has besides what every call has."""
        self.items: list[JSON] = []
        """The output of a Responses upstream; empty where another one answered."""
        self.usage: JSON | None = None
        self.finish_reason = ""

    @property
    def text(self) -> str:
        return "".join(self._texts)

    @property
    def reasoning(self) -> str:
        """What is to go back to the server."""
        return "".join(self._reasoning)

    def note_text(self, text: str) -> bool:
        """Note a piece of the answer; return whether it is the first."""
        self._texts.append(text)
        return len(self._texts) == 1

    def note_reasoning(self, text: str, field: str) -> None:
        if field == RESENT_REASONING:
            self._reasoning.append(text)

    def note_call(self, call: ToolCall, call_id: str) -> None:
        """Note a call to be answered, which is to have ``call_id``."""
        self.calls.append(replace(call, id=call_id, handled=True))
        self.beside.append(self._beside.get(call.id, {}))

    def note_fragments(self, event: Chunk | Token | Reasoning) -> None:
        """Note what a call's parts hold that some servers want back, as a signature of thoughts."""
        delta = event.extra.delta if event.extra else {}
        if isinstance(event, Chunk) and event.first:
            choices = event.first.get("choices")
            delta = choices[0].get("delta") if choices else {}
        fragments = delta.get("tool_calls") if isinstance(delta, dict) else None
        for fragment in fragments if isinstance(fragments, list) else ():
            if not isinstance(fragment, dict):
                continue
            beside = {name: value for name, value in fragment.items() if name not in OF_EVERY_CALL}
            if beside and isinstance(call_id := fragment.get("id"), str):
                self._beside.setdefault(call_id, {}).update(beside)

    def note_item(self, event: ResponseEvent) -> None:
        if event.event.get("type") == "response.output_item.done" and isinstance(
            item := event.event.get("item"), dict
        ):
            self.items.append(item)

    def ran_at_model(self, call: ToolCall) -> bool:
        """Say whether the model's server has made the call itself, as it does for MCP."""
        last = self.items[-1] if self.items else {}
        return last.get("type") == "mcp_call" and call.id in (last.get("id"), last.get("call_id"))


def asked_of(prompt: Prompt) -> list[JSON]:
    """Return what the caller says, as messages.

    Raises `InvalidRequest` for an ``input`` that is neither a text nor messages.
    """
    asked = prompt.input
    if isinstance(asked, dict) and "messages" in asked:
        asked = asked["messages"]
    if asked is None:
        return prompt.messages
    if isinstance(asked, str):
        return [{"role": "user", "content": asked}]
    if not isinstance(asked, list) or not asked or not all(isinstance(said, dict) for said in asked):
        raise InvalidRequest("input: a text, or messages in OpenAI's shape", code="wrong_type", param="input")
    return asked


def refuse(params: JSON, not_here: Mapping[str, str]) -> None:
    """Raise `InvalidRequest` for a parameter that has no meaning here; ``not_here`` says why."""
    for name, why in not_here.items():
        if (given := params.get(name)) and (name, given) != ("n", 1):
            raise InvalidRequest(f"params.{name}: {why}", code="wrong_value", param=f"params.{name}")


class ChatRounds:
    """Messages of chat completions."""

    def __init__(self, prompt: Prompt, model: str, instructions: str, functions: Sequence[Function]) -> None:
        refuse(prompt.params, NOT_HERE)
        tools = [_tool(function) for function in functions]
        params = {**prompt.params, "tools": tools} if tools else prompt.params
        said = [{"role": "system", "content": instructions}] if instructions else []
        self._prompt = Prompt(model, [*said, *asked_of(prompt)], params)

    def prompt(self) -> Prompt:
        return self._prompt

    def add(self, said: Round, results: Sequence[ToolResult]) -> None:
        answer: JSON = {"role": "assistant", "content": said.text or None}
        if reasoning := said.reasoning:
            answer[RESENT_REASONING] = reasoning
        answer["tool_calls"] = [
            {**beside, **_call(call)} for call, beside in zip(said.calls, said.beside, strict=True)
        ]
        told = [{"role": "tool", "tool_call_id": result.id, "content": as_text(result)} for result in results]
        # A tool that must be called has been; asked for again, the model would never come to an end.
        params = {name: value for name, value in self._prompt.params.items() if name != "tool_choice"}
        messages = [*self._prompt.messages, answer, *told]
        self._prompt = replace(self._prompt, messages=messages, params=params)


class ResponseRounds:
    """Items of OpenAI's Responses, with the reasoning between the calls where it can be sent back."""

    def __init__(self, prompt: Prompt, model: str, instructions: str, functions: Sequence[Function]) -> None:
        from streaming.sources import responses  # only for those who ask for it

        chat = ChatRounds(prompt, model, instructions, functions).prompt()
        self._model = model
        self._body = responses.body_of(chat)
        if self._body.get("reasoning"):  # models without reasoning refuse to be asked for it
            self._body["include"] = [*self._body.get("include", ()), ENCRYPTED]

    def prompt(self) -> Prompt:
        return Prompt(self._model, [], response=self._body)

    def add(self, said: Round, results: Sequence[ToolResult]) -> None:
        told = [
            {"type": "function_call_output", "call_id": result.id, "output": as_text(result)}
            for result in results
        ]
        body = {name: value for name, value in self._body.items() if name != "tool_choice"}
        self._body = {**body, "input": [*self._body["input"], *_items(said), *told]}


def _items(said: Round) -> list[JSON]:
    calls = [
        {"type": "function_call", "call_id": call.id, "name": call.tool, "arguments": _arguments(call)}
        for call in said.calls
    ]
    if not said.items:  # a server without Responses answered
        return [*([{"role": "assistant", "content": said.text}] if said.text else []), *calls]
    found: list[JSON] = []
    left = iter(calls)
    for item in said.items:
        if item.get("type") in ("function_call", "custom_tool_call"):
            found.append({**item, **next(left, {})})
        elif item.get("type") != "reasoning" or item.get("encrypted_content"):
            found.append(item)
    return found


def as_text(result: ToolResult) -> str:
    """Return a result as the model is told it."""
    told = result.result if isinstance(result.result, str) else msgspec.json.encode(result.result).decode()
    return f"{told}\n(cut off here)" if result.truncated else told


def _tool(function: Function) -> JSON:
    described = {"description": function.description} if function.description else {}
    told = {"name": function.name, **described, "parameters": function.parameters}
    return {"type": "function", "function": told}


def _call(call: ToolCall) -> JSON:
    function = {"name": call.tool, "arguments": _arguments(call)}
    return {"id": call.id, "type": "function", "function": function}


def _arguments(call: ToolCall) -> str:
    """Return arguments that every server can read; what was wrong with them is in the result."""
    return call.arguments if call.args is not None else "{}"
