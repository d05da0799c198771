"""A request to OpenAI's Responses as one to chat completions.

For model servers that have only those. What they have no counterpart for is
refused by name; what only tunes, or asks for more to be told, is left out.

Source: OpenAI guide, "Migrate to the Responses API".
"""

from typing import Any

from streaming.errors import InvalidRequest
from streaming.sources._request_parts import as_object, given, kind_of, objects, text, unsupported, wrong

SAME = (
    "temperature top_p parallel_tool_calls service_tier user safety_identifier prompt_cache_key"
    " prompt_cache_retention prompt_cache_options moderation"
).split()
READ = frozenset(
    "model input instructions tools tool_choice text reasoning max_output_tokens include top_logprobs".split()
)
# The service's own business, or without an effect on what is said: metadata, for example, is
# told to the client by us, and OpenAI's chat completions take none that they are not to store.
PASSED_OVER = frozenset(
    "stream stream_options store background metadata truncation max_tool_calls image".split()
)
REFUSED = {
    "conversation": "conversations are not kept at the model's server",
    "previous_response_id": "the earlier turns must be in the input",
    "prompt": "this model's server has no prompt templates",
    "context_management": "this model's server does not manage the context",
    "access_programs": "this model's server has none",
    "messages": "the messages belong into the input",
    "n": "there is one answer",
}
NO_TOOL = "this model's server has only functions and custom tools"
LOGPROBS = "message.output_text.logprobs"


def chat_of(body: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the messages and the parameters. Raises `InvalidRequest`.

    Reasoning of earlier turns is left out: some servers refuse it. Fields that
    Responses do not have go on as they are, for servers with more of their own.
    """
    for name, why in REFUSED.items():
        if body.get(name) is not None:
            raise unsupported(name, why)
    turns = _Turns()
    instructions = given(body, "instructions")
    if instructions:
        turns.messages.append({"role": "system", "content": text(instructions, "instructions", "request")})
    asked = body.get("input")
    if isinstance(asked, str):
        turns.messages.append({"role": "user", "content": asked})
    else:
        for at, item in objects(asked, "input"):
            turns.add(item, at)
    if len(turns.messages) == len(instructions):
        raise InvalidRequest("input: it is empty", code="required", param="input")
    known = READ | PASSED_OVER | REFUSED.keys()
    params = {name: value for name, value in body.items() if name not in known and value is not None}
    return turns.messages, params | _params(body)


class _Turns:
    """Items, one by one, as messages: the calls of one turn belong into one message, with its text."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def add(self, item: dict[str, Any], at: str) -> None:
        match item.get("type"):
            case "message" | None if item.get("type") or "role" in item:
                self._add_message(item, at)
            case "function_call":
                function = {"name": text(item, "name", at), "arguments": text(item, "arguments", at)}
                self._add_call({"type": "function", "function": function}, item, at)
            case "custom_tool_call":
                custom = {"name": text(item, "name", at), "input": text(item, "input", at)}
                self._add_call({"type": "custom", "custom": custom}, item, at)
            case "function_call_output" | "custom_tool_call_output":
                answer = {"role": "tool", "tool_call_id": text(item, "call_id", at)}
                self.messages.append(answer | {"content": _output(item.get("output"), f"{at}.output")})
            case "reasoning":
                pass
            case "item_reference" | None:
                raise unsupported(at, "send the item itself: items are not kept at the model's server")
            case _:
                kind_of(item, at)
                raise unsupported(
                    f"{at}.type", "this model's server has only messages and calls of functions"
                )

    def _add_message(self, item: dict[str, Any], at: str) -> None:
        role = item.get("role")
        if role == "assistant":
            self._add_said(item.get("content"), f"{at}.content")
        elif role in ("user", "system", "developer"):
            content = item.get("content")
            if not isinstance(content, str):
                content = [_part(part, name) for name, part in objects(content, f"{at}.content")]
                content = _plain(content)
            self.messages.append({"role": role, "content": content})
        else:
            raise unsupported(f"{at}.role", "one of user, assistant, system, developer")

    def _add_said(self, content: object, at: str) -> None:
        said: dict[str, Any] = {"role": "assistant", "content": content}
        if not isinstance(content, str):
            texts, refusals = [], []
            for name, part in objects(content, at):
                match kind_of(part, name):
                    case "output_text" | "input_text" | "text":
                        texts.append(text(part, "text", name))
                    case "refusal":
                        refusals.append(text(part, "refusal", name))
                    case _:
                        raise unsupported(f"{name}.type", "an assistant says output_text or refusal")
            said["content"] = "".join(texts) if texts or not refusals else None
            if refusals:
                said["refusal"] = "".join(refusals)
        last = self.messages[-1] if self.messages else {}
        if last.get("tool_calls"):
            # Said after the calls and before their results, which must follow their message at once.
            for name in ("content", "refusal"):
                if said.get(name):
                    last[name] = (last.get(name) or "") + said[name]
        else:
            self.messages.append(said)

    def _add_call(self, call: dict[str, Any], item: dict[str, Any], at: str) -> None:
        call = {"id": text(item, "call_id", at), **call}
        if not self.messages or self.messages[-1]["role"] != "assistant":
            self.messages.append({"role": "assistant", "content": None})
        self.messages[-1].setdefault("tool_calls", []).append(call)


def _part(part: dict[str, Any], at: str) -> dict[str, Any]:
    match kind_of(part, at):
        case "input_text" | "output_text" | "text":
            return {"type": "text", "text": text(part, "text", at)}
        case "input_image":
            if part.get("image_url") is None:
                raise unsupported(f"{at}.image_url", "this model's server takes images by URL only")
            image = {"url": text(part, "image_url", at)}
            return {"type": "image_url", "image_url": image | given(part, "detail")}
        case "input_file":
            if part.get("file_url") is not None:
                raise unsupported(f"{at}.file_url", "this model's server takes no files by URL")
            return {"type": "file", "file": given(part, "file_data", "file_id", "filename")}
        case "input_audio":
            return {"type": "input_audio", "input_audio": as_object(part.get("input_audio"), at)}
        case _:
            raise unsupported(f"{at}.type", "this model's server takes text, images, files and audio")


def _output(output: object, at: str) -> object:
    if isinstance(output, str):
        return output
    parts = [(name, _part(part, name)) for name, part in objects(output, at)]
    for name, part in parts:
        if part["type"] != "text":
            raise unsupported(f"{name}.type", "this model's server takes only text as a tool's result")
    return _plain([part for _, part in parts])


def _plain(parts: list[dict[str, Any]]) -> Any:
    """Return a single text as the text itself: more servers take that."""
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts


# Parameters


def _params(body: dict[str, Any]) -> dict[str, Any]:
    params = given(body, *SAME)
    if (limit := body.get("max_output_tokens")) is not None:
        params["max_completion_tokens"] = limit
    params |= _reasoning(body.get("reasoning"))
    params |= _text_options(body.get("text"))
    if body.get("tools"):
        params["tools"] = [_tool(tool, at) for at, tool in objects(body["tools"], "tools")]
    if (choice := body.get("tool_choice")) is not None:
        params["tool_choice"] = _tool_choice(choice)
    include = body.get("include") or []
    if not isinstance(include, list):
        raise wrong("include", "a list")
    top = body.get("top_logprobs")
    if LOGPROBS in include or top:
        params["logprobs"] = True
        params |= given(body, "top_logprobs")
    return params


def _reasoning(reasoning: object) -> dict[str, Any]:
    if reasoning is None:
        return {}
    reasoning = as_object(reasoning, "reasoning")
    if reasoning.get("mode") not in (None, "standard"):
        raise unsupported("reasoning.mode", "this model's server has no modes of reasoning")
    effort = reasoning.get("effort")
    return {} if effort is None else {"reasoning_effort": effort}


def _text_options(options: object) -> dict[str, Any]:
    if options is None:
        return {}
    options = as_object(options, "text")
    params = given(options, "verbosity")
    if options.get("format") is None:
        return params
    shape = as_object(options["format"], "text.format")
    match kind_of(shape, "text.format"):
        case "text":
            return params
        case "json_object":
            return params | {"response_format": {"type": "json_object"}}
        case "json_schema":
            schema = given(shape, "name", "schema", "strict", "description")
            return params | {"response_format": {"type": "json_schema", "json_schema": schema}}
        case _:
            raise unsupported("text.format.type", "one of text, json_object, json_schema")


def _tool(tool: dict[str, Any], at: str) -> dict[str, Any]:
    match kind_of(tool, at):
        case "function":
            text(tool, "name", at)
            return {
                "type": "function",
                "function": given(tool, "name", "description", "parameters", "strict"),
            }
        case "custom":
            text(tool, "name", at)
            custom = given(tool, "name", "description")
            if tool.get("format") is not None:
                custom["format"] = _tool_format(as_object(tool["format"], f"{at}.format"))
            return {"type": "custom", "custom": custom}
        case _:
            raise unsupported(f"{at}.type", NO_TOOL)


def _tool_format(shape: dict[str, Any]) -> dict[str, Any]:
    if shape.get("type") != "grammar":
        return shape
    return {"type": "grammar", "grammar": given(shape, "definition", "syntax")}


def _tool_choice(choice: object) -> object:
    if isinstance(choice, str):
        return choice
    choice = as_object(choice, "tool_choice")
    match kind_of(choice, "tool_choice"):
        case "allowed_tools":
            allowed = [_named(tool, at) for at, tool in objects(choice.get("tools"), "tool_choice.tools")]
            tools = given(choice, "mode") | {"tools": allowed}
            return {"type": "allowed_tools", "allowed_tools": tools}
        case _:
            return _named(choice, "tool_choice")


def _named(tool: dict[str, Any], at: str) -> dict[str, Any]:
    kind = kind_of(tool, at)
    if kind not in ("function", "custom"):
        raise unsupported(f"{at}.type", NO_TOOL)
    return {"type": kind, kind: {"name": text(tool, "name", at)}}
