"""Anything becomes readable JSON: bounded, the same each time, without raising."""

import dataclasses
import datetime
import decimal
import enum
import json
import pathlib
import subprocess
import sys
import uuid
from typing import Any, NamedTuple

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.events import json_line
from streaming.runnables._readable import to_json


class Color(enum.Enum):
    RED = "red"


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Pair:
    left: Any
    right: Any
    secret: str = dataclasses.field(default="sk-1", repr=False)


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    name: str
    key: pydantic.SecretStr = pydantic.SecretStr("sk-2")
    hidden: str = pydantic.Field(default="sk-3", exclude=True)


class Record(msgspec.Struct):
    a: int


class Hostile:
    @property
    def __class__(self) -> type:  # type: ignore[override]
        raise RuntimeError("I have no class")

    def __repr__(self) -> str:
        raise RuntimeError("I have no name")


class Chain:
    def __init__(self) -> None:
        self.key = "sk-4"

    def invoke(self, value: object) -> object:
        return value

    def __repr__(self) -> str:
        return f"Chain({self.key})"


@pytest.mark.parametrize(
    ("value", "readable"),
    [
        (None, None),
        ([True, 1, 1.5, "x"], [True, 1, 1.5, "x"]),
        (float("nan"), None),
        ([float("inf")], [None]),
        (2**70, str(2**70)),
        (b"plain", "plain"),
        (b"\xff\xfe", "//4="),
        ({3, 1, 2}, [1, 2, 3]),
        ({1: "a", None: "b", (1, 2): "d"}, {"1": "a", "null": "b", "(1, 2)": "d"}),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (datetime.timedelta(minutes=1), 60.0),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (pathlib.PurePosixPath("/a"), "/a"),
        (decimal.Decimal("1.10"), "1.10"),
        (Color.RED, "red"),
        (Point(1, 2), {"x": 1, "y": 2}),
        (Pair(1, [2]), {"left": 1, "right": [2]}),
        (Model(name="n", more=1), {"name": "n", "key": "**********", "more": 1}),
        (Record(1), {"a": 1}),
        (ValueError("sk-5 quoted"), "ValueError"),
        (Chain(), "<Chain>"),
        (object(), "<object object>"),
        (Point, "<Point>"),
        (len, "<len>"),
        ("half \ud83d", "half \ufffd"),
        ("line\u2028break", "line\u2028break"),
    ],
)
def test_each_kind_has_one_readable_form(value: Any, readable: Any) -> None:
    assert to_json(value) == readable


def test_an_object_that_raises_at_every_touch_is_named() -> None:
    assert to_json({"in": Hostile()}) == {"in": "<Hostile>"}


def test_a_number_too_long_for_text_is_described() -> None:
    assert to_json(10**10000) == "<33220 bits>"


def test_messages_and_documents_become_their_fields() -> None:
    documents = pytest.importorskip("langchain_core.documents")
    messages = pytest.importorskip("langchain_core.messages")

    found = to_json([documents.Document("text", metadata={"n": 1}), messages.HumanMessage("hi", id="m1")])

    assert found[0]["page_content"] == "text"
    assert found[0]["metadata"] == {"n": 1}
    assert (found[1]["type"], found[1]["content"], found[1]["id"]) == ("human", "hi", "m1")


def test_a_cycle_is_cut_and_a_value_met_twice_is_not() -> None:
    shared = [1]
    cycle: list[Any] = [shared, shared]
    cycle.append(cycle)

    assert to_json(cycle) == [[1], [1], "…"]


def test_depth_is_bounded() -> None:
    deep: Any = []
    for _ in range(10_000):
        deep = [deep]

    assert json.dumps(to_json(deep)).count("[") == 32


def test_what_is_left_out_is_counted() -> None:
    assert to_json(list(range(1000)), 128)[-1].endswith(" more")
    assert "more" in to_json({str(n): "x" * 50 for n in range(1000)}, 256)["…"]


def test_an_endless_iterator_is_named_and_not_read() -> None:
    def count() -> Any:
        while True:
            yield 1

    assert to_json(count()).startswith("<generator object")
    assert " at 0x" not in to_json(count())


class Array:
    """What numpy's arrays have of interest here."""

    def __init__(self, *numbers: float, size: int = 0) -> None:
        self._numbers = list(numbers)
        self.size = size or len(numbers)
        self.nbytes = 8 * self.size

    def tolist(self) -> list[float]:
        return self._numbers


def test_arrays_become_lists_unless_they_are_huge() -> None:
    assert to_json({"v": Array(1.5, float("nan"))}) == {"v": [1.5, None]}
    assert to_json(Array(size=10**7)) == "<Array of 10000000>"


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=300)
    | st.binary(max_size=100)
    | st.text(st.sampled_from('\x00\u2028\ud800"\\é'), max_size=300),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.builds(Pair, inner, inner)
        | st.sets(st.integers() | st.text())
    ),
    max_leaves=40,
)


@given(ANYTHING, st.integers(128, 2000))
def test_the_bound_holds_for_the_encoded_bytes(value: Any, max_bytes: int) -> None:
    assert len(json_line(to_json(value, max_bytes))) <= max_bytes


@given(ANYTHING)
def test_the_same_value_is_told_the_same(value: Any) -> None:
    assert to_json(value) == to_json(value)


def test_a_set_has_the_same_order_in_every_process() -> None:
    ask = "from streaming.runnables._readable import to_json; print(to_json({'a', 'b', 'c', 1, None, (1,)}))"

    said = {
        subprocess.run(
            [sys.executable, "-c", ask], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2", "3")
    }

    assert len(said) == 1
