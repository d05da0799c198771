"""A prompt in the shape of chat completions as a request to OpenAI's Responses.

Source: OpenAI guide, "Migrate to the Responses API".
"""

from typing import Any

from streaming.sources import Prompt
from streaming.sources._request_parts import as_object, given, kind_of, objects, text, unsupported, wrong

SAME = (
    "temperature top_p top_logprobs parallel_tool_calls service_tier metadata user safety_identifier"
    " prompt_cache_key prompt_cache_retention prompt_cache_options"
).split()
READ = frozenset(
    "max_tokens max_completion_tokens logprobs response_format verbosity reasoning_effort tools"
    " tool_choice".split()
)
# The service's own business.
PASSED_OVER = frozenset("stream stream_options store model messages".split())
NOT_HERE = "OpenAI's Responses have no such parameter"


def response_of(prompt: Prompt) -> dict[str, Any]:
    """Return the body of the request, apart from its model. Raises `InvalidRequest`."""
    params = prompt.params
    for name, value in params.items():
        only_one = name == "n" and value == 1
        if value is not None and not only_one and name not in READ and name not in (*SAME, *PASSED_OVER):
            raise unsupported(f"params.{name}", NOT_HERE)
    return {"input": _input(prompt.messages), **given(params, *SAME), **_params(params)}


def _input(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    custom_calls: set[str] = set()
    for at, message in objects(messages, "messages"):
        for name in ("name", "function_call", "audio"):
            if message.get(name) is not None:
                raise unsupported(f"{at}.{name}", "OpenAI's Responses have no such field")
        match message.get("role"):
            case "assistant":
                items += _said(message, at)
                for where, call in objects(message.get("tool_calls") or [], f"{at}.tool_calls"):
                    items.append(_call(call, where))
                    if items[-1]["type"] == "custom_tool_call":
                        custom_calls.add(items[-1]["call_id"])
            case "tool":
                call_id = text(message, "tool_call_id", at)
                kind = "custom_tool_call" if call_id in custom_calls else "function_call"
                output = _content(message.get("content"), f"{at}.content")
                items.append({"type": f"{kind}_output", "call_id": call_id, "output": output})
            case "user" | "system" | "developer" as role:
                content = _content(message.get("content"), f"{at}.content")
                items.append({"type": "message", "role": role, "content": content})
            case _:
                raise unsupported(f"{at}.role", "one of user, assistant, system, developer, tool")
    return items


def _said(message: dict[str, Any], at: str) -> list[dict[str, Any]]:
    """Return what the assistant said in an earlier turn, a refusal as text.

    A part of its own is for items that bear the id their server gave them.
    """
    content = message.get("content")
    said: list[str] = []
    if isinstance(content, str):
        said.append(content)
    elif content is not None:
        for name, part in objects(content, f"{at}.content"):
            kind = kind_of(part, name)
            if kind not in ("text", "refusal"):
                raise unsupported(f"{name}.type", "an assistant says text or refusal")
            said.append(text(part, kind, name))
    if message.get("refusal") is not None:
        said.append(text(message, "refusal", at))
    whole = "".join(said)
    return [{"type": "message", "role": "assistant", "content": whole}] if whole else []


def _call(call: dict[str, Any], at: str) -> dict[str, Any]:
    call_id = text(call, "id", at)
    if call.get("type") == "custom":
        custom = as_object(call.get("custom"), f"{at}.custom")
        named = {"name": text(custom, "name", f"{at}.custom"), "input": text(custom, "input", f"{at}.custom")}
        return {"type": "custom_tool_call", "call_id": call_id, **named}
    at = f"{at}.function"
    function = as_object(call.get("function"), at)
    named = {"name": text(function, "name", at), "arguments": text(function, "arguments", at)}
    return {"type": "function_call", "call_id": call_id, **named}


def _content(content: object, at: str) -> object:
    if isinstance(content, str):
        return content
    return [_part(part, name) for name, part in objects(content, at)]


def _part(part: dict[str, Any], at: str) -> dict[str, Any]:
    match kind_of(part, at):
        case "text":
            return {"type": "input_text", "text": text(part, "text", at)}
        case "image_url":
            image = as_object(part.get("image_url"), f"{at}.image_url")
            url = text(image, "url", f"{at}.image_url")
            return {"type": "input_image", "image_url": url, "detail": image.get("detail") or "auto"}
        case "file":
            file = as_object(part.get("file"), f"{at}.file")
            return {"type": "input_file", **given(file, "file_data", "file_id", "filename")}
        case "input_audio":
            return {"type": "input_audio", **given(part, "input_audio")}
        case _:
            raise unsupported(f"{at}.type", "one of text, image_url, file, input_audio")


# Parameters


def _params(params: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for name in ("max_tokens", "max_completion_tokens"):  # the newer name counts
        if params.get(name) is not None:
            body["max_output_tokens"] = params[name]
    if params.get("reasoning_effort") is not None:
        body["reasoning"] = {"effort": params["reasoning_effort"]}
    if params.get("logprobs"):
        body["include"] = ["message.output_text.logprobs"]
    text_options = given(params, "verbosity")
    if params.get("response_format") is not None:
        text_options["format"] = _format(as_object(params["response_format"], "params.response_format"))
    if text_options:
        body["text"] = text_options
    if params.get("tools"):
        body["tools"] = [_tool(tool, at) for at, tool in objects(params["tools"], "params.tools")]
    if params.get("tool_choice") is not None:
        body["tool_choice"] = _tool_choice(params["tool_choice"])
    return body


def _format(shape: dict[str, Any]) -> dict[str, Any]:
    if shape.get("type") != "json_schema":
        return shape
    at = "params.response_format.json_schema"
    schema = as_object(shape.get("json_schema"), at)
    text(schema, "name", at)
    return {"type": "json_schema", **given(schema, "name", "schema", "strict", "description")}


def _tool(tool: dict[str, Any], at: str) -> dict[str, Any]:
    match kind_of(tool, at):
        case "function":
            function = as_object(tool.get("function"), f"{at}.function")
            text(function, "name", f"{at}.function")
            # Where it is not said, chat completions are not strict, and Responses are.
            strict = bool(function.get("strict"))
            parameters = function.get("parameters")
            named = given(function, "name", "description")
            return {"type": "function", **named, "parameters": parameters, "strict": strict}
        case "custom":
            custom = as_object(tool.get("custom"), f"{at}.custom")
            text(custom, "name", f"{at}.custom")
            flat = {"type": "custom", **given(custom, "name", "description")}
            if custom.get("format") is not None:
                flat["format"] = _tool_format(as_object(custom["format"], f"{at}.custom.format"))
            return flat
        case _:
            raise unsupported(f"{at}.type", "one of function, custom")


def _tool_format(shape: dict[str, Any]) -> dict[str, Any]:
    if shape.get("type") != "grammar":
        return shape
    grammar = as_object(shape.get("grammar"), "params.tools.custom.format.grammar")
    return {"type": "grammar", **given(grammar, "definition", "syntax")}


def _tool_choice(choice: object) -> object:
    if isinstance(choice, str):
        return choice
    at = "params.tool_choice"
    choice = as_object(choice, at)
    match kind_of(choice, at):
        case "function" | "custom" as kind:
            return _named(choice, kind, at)
        case "allowed_tools":
            allowed = as_object(choice.get("allowed_tools"), f"{at}.allowed_tools")
            tools = [
                _named(tool, kind_of(tool, name), name)
                for name, tool in objects(allowed.get("tools"), f"{at}.allowed_tools.tools")
            ]
            return {"type": "allowed_tools", **given(allowed, "mode"), "tools": tools}
        case _:
            raise unsupported(f"{at}.type", "one of function, custom, allowed_tools")


def _named(choice: dict[str, Any], kind: str, at: str) -> dict[str, Any]:
    if kind not in ("function", "custom"):
        raise wrong(f"{at}.type", "one of function, custom")
    named = as_object(choice.get(kind), f"{at}.{kind}")
    return {"type": kind, "name": text(named, "name", f"{at}.{kind}")}
