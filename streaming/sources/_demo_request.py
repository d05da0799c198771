"""What a chat-completions request holds: the part of OpenAI's request the demo model reads."""

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct


class BadRequest(ValueError):
    """The request cannot be answered; ``param`` names the field at fault, when one is."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class ImageUrl(Struct, frozen=True):
    url: str


class TextPart(Struct, frozen=True, tag_field="type", tag="text"):
    text: str


class ImagePart(Struct, frozen=True, tag_field="type", tag="image_url"):
    image_url: ImageUrl


class RefusalPart(Struct, frozen=True, tag_field="type", tag="refusal"):
    refusal: str


class CalledFunction(Struct, frozen=True):
    name: str
    arguments: str


class CalledTool(Struct, frozen=True):
    """A call the assistant made in an earlier turn."""

    id: str
    function: CalledFunction


class Message(Struct, frozen=True):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart | ImagePart | RefusalPart] | None = None
    tool_calls: list[CalledTool] | None = None
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """The text of the content, its parts joined by line breaks."""
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        return "\n".join(part.text for part in self.content if isinstance(part, TextPart))

    @property
    def images(self) -> list[str]:
        """The URLs of the image parts, ``data:`` ones included."""
        if self.content is None or isinstance(self.content, str):
            return []
        return [part.image_url.url for part in self.content if isinstance(part, ImagePart)]


class Function(Struct, frozen=True):
    name: str
    parameters: dict[str, Any] | None = None


class Tool(Struct, frozen=True):
    type: Literal["function"]
    function: Function


class FunctionName(Struct, frozen=True):
    name: str


class NamedChoice(Struct, frozen=True):
    type: Literal["function"]
    function: FunctionName


class JsonSchema(Struct, frozen=True):
    name: str
    schema: dict[str, Any] | None = None


class ResponseFormat(Struct, frozen=True):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(Struct, frozen=True):
    include_usage: bool | None = None


TokenLimit = Annotated[int, Meta(ge=1)]


class ChatRequest(Struct, frozen=True):
    """The body of ``POST /chat/completions``; fields not listed are accepted and ignored."""

    model: str
    messages: Annotated[list[Message], Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stop: str | list[str] | None = None
    max_tokens: TokenLimit | None = None
    max_completion_tokens: TokenLimit | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None

    @property
    def token_limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def prompt(self) -> str:
        """The text of the last message from the user."""
        return next((message.text for message in reversed(self.messages) if message.role == "user"), "")


def read_request(body: bytes) -> ChatRequest:
    """Decode and check the body of a chat-completions request; raises ``BadRequest``."""
    try:
        request = msgspec.json.decode(body, type=ChatRequest)
    except msgspec.ValidationError as error:
        raise BadRequest(str(error), param=param_of(str(error))) from error
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, nested without end
        raise BadRequest(f"the body is not valid JSON: {error}") from error
    _check_together(request)
    return request


def _check_together(request: ChatRequest) -> None:
    """Refuse fields that are each well formed and do not fit each other."""
    choice = request.tool_choice
    if choice in ("auto", "required") and not request.tools:
        raise BadRequest("'tool_choice' is only allowed when 'tools' are specified", param="tool_choice")
    if isinstance(choice, NamedChoice):
        name = choice.function.name
        if all(tool.function.name != name for tool in request.tools or ()):
            raise BadRequest(f"tool choice {name!r} is not among 'tools'", param="tool_choice")
    shape = request.response_format
    if shape and shape.type == "json_schema" and shape.json_schema is None:
        raise BadRequest("missing required parameter", param="response_format.json_schema")


def param_of(problem: str) -> str | None:
    """Return the field a validation message is about, the way OpenAI names it.

    >>> param_of("Expected `str`, got `int` - at `$.messages[0].role`")
    'messages[0].role'
    >>> param_of("Object missing required field `url` - at `$.messages[0].content[1].image_url`")
    'messages[0].content[1].image_url.url'
    """
    at = re.search(r" - at `\$\.?([^`]*)`$", problem)
    missing = re.search(r"missing required field `([^`]+)`", problem)
    names = [match.group(1) for match in (at, missing) if match]
    return ".".join(names) or None
