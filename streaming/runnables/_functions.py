"""A Python function as a tool: what a model is told of it, and its arguments checked before it is called."""

import inspect
import re
from collections.abc import Callable
from typing import Any, NotRequired, get_type_hints

import typing_extensions
from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from streaming.errors import SettingsError

# Source: OpenAI API reference, "function.name".
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
MOST_PROBLEMS_TOLD = 8
# For a type checker a type is made where its name is written.
_new_typed_dict: Callable[[str, dict[str, Any]], Any] = getattr(typing_extensions, "TypedDict")  # noqa: B009


class ToolError(Exception):
    """For a tool to raise: its message is told to the model, and shown to whoever reads the stream."""


class Function:
    """Raises `SettingsError` for a function whose parameters cannot be told to a model."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.name: str = getattr(function, "__name__", "")
        if not callable(function) or not _NAME.fullmatch(self.name):
            raise SettingsError(f"a tool is a function with a name of its own, not {type(function).__name__}")
        self.description = inspect.getdoc(function) or ""
        self._function = function
        self._arguments = _adapter(function, self.name)
        try:
            self.parameters: dict[str, Any] = self._arguments.json_schema()
        except PydanticUserError as error:
            raise SettingsError(
                f"tool {self.name}: its parameters have no JSON schema: {error.code}"
            ) from None

    def checked(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments as the types of the parameters. Raises `ToolError` that says what is wrong."""
        try:
            return dict(self._arguments.validate_python(arguments))
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False, include_input=False)
            problems = [
                f"{'.'.join(map(str, problem['loc'])) or 'arguments'}: {problem['msg']}" for problem in found
            ]
            raise ToolError("; ".join(problems[:MOST_PROBLEMS_TOLD])[:2000]) from None

    def call(self, arguments: dict[str, Any]) -> Any:
        """Return what the function returns; that of an ``async def`` is to be awaited."""
        return self._function(**arguments)


def _adapter(function: Callable[..., Any], name: str) -> TypeAdapter[Any]:
    try:
        hints = get_type_hints(function, include_extras=True)
        parameters = inspect.signature(function).parameters.values()
    except (NameError, TypeError, ValueError):
        raise SettingsError(f"tool {name}: its type hints cannot be read") from None
    fields: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise SettingsError(f"tool {name}: {parameter} cannot be given by name")
        if parameter.name not in hints:
            raise SettingsError(f"tool {name}: parameter {parameter.name} has no type hint")
        hint = hints[parameter.name]
        # The function has its defaults itself.
        fields[parameter.name] = hint if parameter.default is parameter.empty else NotRequired[hint]
    shape = _new_typed_dict(name, fields)
    shape.__pydantic_config__ = ConfigDict(extra="forbid")
    try:
        return TypeAdapter(shape)
    except PydanticUserError as error:
        raise SettingsError(f"tool {name}: its parameters have no JSON schema: {error.code}") from None
