"""What a model is told of a Python function, and what becomes of the arguments it gives."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from streaming.errors import SettingsError
from streaming.runnables import tools
from streaming.runnables._functions import Function
from streaming.runnables.tools import ToolLoop
from tests.tool_loops import add


class City(BaseModel):
    name: str
    people: int


def test_a_function_is_described_by_its_signature() -> None:
    def find(
        city: Annotated[str, Field(description="A city's name.")],
        *,
        unit: Literal["c", "f"] = "c",
        around: list[City] | None = None,
    ) -> str:
        """Find the weather.

        In a city.
        """
        return ""

    function = Function(find)
    assert function.name == "find"
    assert function.description == "Find the weather.\n\nIn a city."
    told = function.parameters
    assert told["required"] == ["city"]
    assert told["additionalProperties"] is False
    assert told["properties"]["city"]["description"] == "A city's name."
    assert told["properties"]["unit"]["enum"] == ["c", "f"]
    assert set(told["$defs"]) == {"City"}


def test_arguments_become_what_the_parameters_say() -> None:
    def find(city: City, json: int = 3) -> str:
        return f"{city.name} {json}"

    function = Function(find)
    given = function.checked({"city": {"name": "Brno", "people": "5"}})
    assert given == {"city": City(name="Brno", people=5)}
    assert function.call(given) == "Brno 3"


def test_a_function_that_cannot_be_told_is_refused_by_name() -> None:
    def no_hint(a) -> str:  # type: ignore[no-untyped-def]
        return ""

    def splat(*values: int) -> str:
        return ""

    def unknown(a: "Nothing") -> str:  # type: ignore[name-defined]  # noqa: F821
        return ""

    def callback(a: Callable[[], int]) -> str:
        return ""

    for function, said in [
        (no_hint, "tool no_hint: parameter a has no type hint"),
        (splat, "tool splat: *values: int cannot be given by name"),
        (unknown, "tool unknown: its type hints cannot be read"),
        (callback, "tool callback: its parameters have no JSON schema"),
        (lambda: "", "a function with a name of its own"),
        ("text", "a function with a name of its own"),
    ]:
        with pytest.raises(SettingsError) as raised:
            ToolLoop([function])  # type: ignore[list-item]
        assert said in str(raised.value)


@pytest.mark.parametrize(
    "options", [{"rounds": 0}, {"result_bytes": 0}, {"tool_seconds": float("nan")}, {"api": "x"}]
)
def test_an_option_that_cannot_be_used_is_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(options))):
        ToolLoop([add], **options)


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(SettingsError, match="same name"):
        ToolLoop([add, add])


def test_only_tool_loops_are_taken() -> None:
    assert tools.accepts(ToolLoop([add]))
    assert not tools.accepts(add)
