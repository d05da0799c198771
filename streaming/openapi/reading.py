"""The description as a page shows it: chapters of operations, and schemas as lists of fields."""

from collections.abc import Iterator
from typing import NamedTuple

from streaming.openapi import JSON
from streaming.openapi._refusals import phrase_of
from streaming.openapi._snippets import BASE as BASE
from streaming.openapi._snippets import Snippet, snippets_of

AT = "#/components/schemas/"
MAX_CHOICES = 12


class Word(NamedTuple):
    """A piece of a type's name; one with a ``link`` is the name of a schema."""

    text: str
    link: str = ""


class Field(NamedTuple):
    name: str
    where: str
    """Of a parameter: ``path``, ``query`` or ``header``."""
    type: list[Word]
    limits: str
    required: bool
    about: str


class Content(NamedTuple):
    media_type: str
    type: list[Word]
    fields: list[Field]
    """Of a shape that has no name."""
    example: str


class Answer(NamedTuple):
    status: str
    phrase: str
    about: str
    content: list[Content]
    headers: list[tuple[str, str]]
    is_refusal: bool


class Entry(NamedTuple):
    id: str
    method: str
    path: str
    summary: str
    about: str
    scope: str
    """What a key needs; empty where none is needed."""
    parameters: list[Field]
    bodies: list[Content]
    answers: list[Answer]
    snippets: list[Snippet]


class Chapter(NamedTuple):
    name: str
    anchor: str
    about: str
    entries: list[Entry]


class Schema(NamedTuple):
    name: str
    about: str
    type: list[Word]
    """Of one that is no object."""
    fields: list[Field]


def chapters(document: JSON) -> list[Chapter]:
    """Return what there is to read, in the order of the tags."""
    by_tag: dict[str, list[Entry]] = {tag["name"]: [] for tag in document["tags"]}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            by_tag[operation["tags"][0]].append(_entry(document, method.upper(), path, operation))
    return [
        Chapter(tag["name"], f"tag-{tag['name'].lower()}", tag["description"], by_tag[tag["name"]])
        for tag in document["tags"]
        if by_tag[tag["name"]]
    ]


def schemas_of(document: JSON) -> list[Schema]:
    """Return every named schema."""
    return [
        Schema(name, schema.get("description", ""), type_of(schema), fields_of(schema))
        for name, schema in document["components"]["schemas"].items()
    ]


def _entry(document: JSON, method: str, path: str, operation: JSON) -> Entry:
    scopes = [scope for each in operation["security"] for scope in each.get("key", [])]
    body = operation.get("requestBody", {})
    return Entry(
        operation["operationId"],
        method,
        path,
        operation["summary"],
        operation.get("description", ""),
        scopes[0] if scopes else "",
        [_parameter(each) for each in operation.get("parameters", [])],
        [_content(media_type, each) for media_type, each in body.get("content", {}).items()],
        [_answer(document, status, each) for status, each in operation["responses"].items()],
        snippets_of(method, path, operation),
    )


def _parameter(parameter: JSON) -> Field:
    schema = parameter["schema"]
    inner = schema.get("items", schema)
    return Field(
        parameter["name"],
        parameter["in"],
        type_of(schema),
        limits_of(inner),
        parameter.get("required", False),
        parameter["description"],
    )


def _answer(document: JSON, status: str, answer: JSON) -> Answer:
    is_refusal = "$ref" in answer
    if is_refusal:
        answer = document["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    return Answer(
        status,
        phrase_of(int(status)),
        answer["description"],
        [_content(media_type, each) for media_type, each in answer.get("content", {}).items()],
        [
            (name, header["description"])
            for name, header in answer.get("headers", {}).items()
            if "description" in header
        ],
        is_refusal,
    )


def _content(media_type: str, content: JSON) -> Content:
    schema = content["schema"]
    if item := content.get("x-itemSchema"):
        schema = item["properties"]["data"]["contentSchema"]
    return Content(media_type, type_of(schema), fields_of(schema), content.get("example", ""))


def fields_of(schema: JSON) -> list[Field]:
    """Return the fields of an object."""
    required = schema.get("required", ())
    return [
        Field(name, "", type_of(each), limits_of(each), name in required, each.get("description", ""))
        for name, each in schema.get("properties", {}).items()
    ]


def type_of(schema: JSON) -> list[Word]:
    """Return a type for people.

    >>> "".join(word.text for word in type_of({"anyOf": [{"type": "array", "items": {}}, {"type": "null"}]}))
    'any[] | null'
    """
    return list(_words(schema))


def _words(schema: JSON) -> Iterator[Word]:
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(AT)
        yield Word(name, f"schema-{name}")
    elif "enum" in schema:
        shown = schema["enum"][:MAX_CHOICES]
        yield Word(" | ".join(f'"{each}"' if isinstance(each, str) else str(each) for each in shown))
        if len(shown) < len(schema["enum"]):
            yield Word(" | …")
    elif "anyOf" in schema:
        for place, each in enumerate(schema["anyOf"]):
            if place:
                yield Word(" | ")
            yield from _words(each)
    elif schema.get("type") == "array":
        inner = list(_words(schema.get("items", {})))
        alone = len(inner) == 1
        yield from inner if alone else [Word("("), *inner, Word(")")]
        yield Word("[]")
    else:
        yield Word(schema.get("type", "any"))


def limits_of(schema: JSON) -> str:
    """Return what a value must keep to.

    >>> limits_of({"type": "integer", "minimum": 0, "maximum": 5, "default": 1})
    'at least 0, at most 5, default 1'
    """
    said: list[str] = []
    for each in (schema, *schema.get("anyOf", ())):
        said += [f"{words} {each[name]:g}" for name, words in _BOUNDS if name in each]
        said += [f"{words} {each[name]} {unit}" for name, words, unit in _LENGTHS if name in each]
        if "pattern" in each:
            said.append(f"matches {each['pattern']}")
    if schema.get("default") not in (None, {}, [], ""):
        said.append(f"default {schema['default']}")
    return ", ".join(said)


_BOUNDS = (
    ("minimum", "at least"),
    ("exclusiveMinimum", "more than"),
    ("maximum", "at most"),
    ("exclusiveMaximum", "less than"),
)
_LENGTHS = (
    ("minLength", "at least", "characters"),
    ("maxLength", "at most", "characters"),
    ("minItems", "at least", "of them"),
    ("maxItems", "at most", "of them"),
)
