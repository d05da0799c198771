"""The description: how types become schemas, what a page shows of them, what can be copied."""

import shlex
from typing import Annotated, Any

import pytest
from msgspec import Meta, Struct

from streaming.errors import kinds
from streaming.openapi import Answer, Body, Events, Operation, Parameter, Service, Tag
from streaming.openapi._refusals import NAMES, types_of
from streaming.openapi.document import document
from streaming.openapi.reading import chapters, limits_of, schemas_of, type_of


class Inner(Struct):
    """What is inside."""

    size: Annotated[int, Meta(ge=1)]
    """In bytes, as ``int``."""


class Asked(Struct, forbid_unknown_fields=True):
    inner: Inner
    words: list[str] = []


class Cat(Struct, tag="cat"):
    name: str


class Dog(Struct, tag="dog"):
    name: str


OPERATION = Operation(
    "POST",
    "/things/{id}",
    "makeThing",
    "Things",
    "Make one",
    "",
    (
        Parameter("id", "path", "Its id.", {"type": "string", "examples": ["th_1"]}),
        Parameter("near", "query", "Where.", {"type": "string", "examples": ["a b&c"]}, required=True),
    ),
    Body(Asked, {'It\'s one, "quoted"': {"inner": {"size": 1}, "words": ["it's", "two\nlines"]}}),
    {200: Answer("Its events.", {"text/event-stream": Events(Cat | Dog)})},
    (400, 410),
)
SERVICE = Service(
    "Things",
    "1",
    "All of them.",
    (Tag("Things", "Some."),),
    {Cat | Dog: "Animal", Asked: "NewThing"},
    False,
    "s",
)


@pytest.fixture
def told() -> dict[str, Any]:
    return document([OPERATION], SERVICE)


def test_a_type_is_called_what_it_was_named_wherever_it_stands(told: dict[str, Any]) -> None:
    assert {"NewThing", "Inner", "Animal", "Cat", "Dog"} <= told["components"]["schemas"].keys()
    body = told["paths"]["/things/{id}"]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"] == {"$ref": "#/components/schemas/NewThing"}


def test_the_docstring_under_a_field_is_its_description(told: dict[str, Any]) -> None:
    size = told["components"]["schemas"]["Inner"]["properties"]["size"]
    assert size == {"type": "integer", "minimum": 1, "description": "In bytes, as `int`."}


def test_an_event_stream_says_what_one_event_holds(told: dict[str, Any]) -> None:
    content = told["paths"]["/things/{id}"]["post"]["responses"]["200"]["content"]["text/event-stream"]
    assert content["schema"] == {"type": "string"}
    data = content["x-itemSchema"]["properties"]["data"]
    assert data["contentSchema"] == {"$ref": "#/components/schemas/Animal"}


def test_what_needs_a_key_says_which_scope_and_may_be_refused_one(told: dict[str, Any]) -> None:
    operation = told["paths"]["/things/{id}"]["post"]
    assert operation["security"] == [{"key": ["run"]}, {"session": ["run"]}]
    assert {"400", "401", "403", "405", "410", "429", "503"} <= operation["responses"].keys()


def test_an_open_service_needs_no_key_and_a_public_address_never() -> None:
    alone = document([OPERATION], SERVICE._replace(is_open=True))
    assert alone["paths"]["/things/{id}"]["post"]["security"][0] == {}
    public = document([OPERATION._replace(access="public")], SERVICE)["paths"]["/things/{id}"]["post"]
    assert public["security"] == []
    assert "401" not in public["responses"]


def test_every_status_of_an_error_that_a_caller_can_meet_has_a_name() -> None:
    inside = {500}
    assert {kind.status for kind in kinds()} - inside <= NAMES.keys()
    assert "rate_limited" in types_of(429) or "upstream_rate_limited" in types_of(429)


def test_a_page_shows_types_with_links_and_limits(told: dict[str, Any]) -> None:
    (chapter,) = chapters(told)
    (entry,) = chapter.entries
    assert [(each.name, each.where, each.required) for each in entry.parameters] == [
        ("id", "path", True),
        ("near", "query", True),
    ]
    (word,) = entry.bodies[0].type
    assert word.link == "schema-NewThing"
    inner = next(each for each in schemas_of(told) if each.name == "Inner")
    assert [(each.name, each.limits) for each in inner.fields] == [("size", "at least 1")]


@pytest.mark.parametrize(
    ("schema", "shown"),
    [
        ({"enum": ["a", 1]}, '"a" | 1'),
        ({"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "null"}]}}, "(string | null)[]"),
        ({"$ref": "#/components/schemas/Cat"}, "Cat"),
        ({}, "any"),
    ],
)
def test_types_in_words(schema: dict[str, Any], shown: str) -> None:
    assert "".join(word.text for word in type_of(schema)) == shown


def test_limits_in_words() -> None:
    assert (
        limits_of({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "null"}]}) == "more than 0"
    )


def test_snippets_are_what_their_languages_read(
    told: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (chapter,) = chapters(told)
    curl, python, javascript = (each.text for each in chapter.entries[0].snippets)

    words = shlex.split(curl.replace("\\\n", " "))
    assert words[:3] == ["curl", "-N", "http://localhost:8000/things/th_1?near=a%20b%26c"]
    assert "Content-Type: application/json" in words
    compile(python, "snippet", "exec")
    assert '"it\'s"' in python
    assert "fetch(" in javascript
