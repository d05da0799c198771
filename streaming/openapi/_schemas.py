"""JSON schemas of the types that read requests and are sent in answers."""

import ast
import functools
import inspect
import re
import sys
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import msgspec

from streaming.openapi import JSON, Shape

AT = "#/components/schemas/"


class Schemas:
    """The schemas of some types, each a component by its name; others are written where they stand."""

    def __init__(self, shapes: Iterable[Shape], names: Mapping[Any, str]) -> None:
        self._types = list(dict.fromkeys([*names, *(each for each in shapes if not isinstance(each, dict))]))
        found, components = msgspec.json.schema_components(self._types, ref_template=f"{AT}{{name}}")
        renamed = {
            schema["$ref"].removeprefix(AT): names[kind]
            for kind, schema in zip(self._types, found, strict=True)
            if kind in names and "$ref" in schema
        }
        # What has no name of its own, as a union, gets the one it is given.
        unions = [
            (schema, names[kind])
            for kind, schema in zip(self._types, found, strict=True)
            if kind in names and "$ref" not in schema
        ]
        docs = _docs_by_name(self._types)
        for name, schema in components.items():
            _describe(schema, docs.get(name) or docs.get(name.rpartition(".")[2], {}))
        self.components: JSON = {
            renamed.get(name, name): _rewritten({**schema, "title": renamed.get(name, name)}, renamed, unions)
            for name, schema in components.items()
        }
        for schema, name in unions:
            self.components[name] = {"title": name, **_rewritten(schema, renamed, [])}
        self.components = dict(sorted(self.components.items()))
        self._found = {
            kind: _rewritten(schema, renamed, unions) for kind, schema in zip(self._types, found, strict=True)
        }

    def of(self, shape: Shape) -> JSON:
        """Return the schema of a shape, which was among those given."""
        found: JSON = shape if isinstance(shape, dict) else self._found[shape]
        return found


def _rewritten(value: Any, renamed: Mapping[str, str], unions: Iterable[tuple[JSON, str]]) -> Any:
    if isinstance(value, list):
        return [_rewritten(each, renamed, unions) for each in value]
    if isinstance(value, str) and value.startswith(AT):
        name = value.removeprefix(AT)
        return AT + renamed.get(name, name)
    if not isinstance(value, dict):
        return value
    for schema, name in unions:
        if value == schema:
            return {"$ref": AT + name}
    return {name: _rewritten(each, renamed, unions) for name, each in value.items()}


def _describe(schema: JSON, docs: Mapping[str, str]) -> None:
    """Add what the docstrings under a type's fields say."""
    if "description" in schema:
        schema["description"] = markdown_of(schema["description"])
    for name, each in schema.get("properties", {}).items():
        if name in docs and "description" not in each:
            each["description"] = docs[name]


def markdown_of(text: str) -> str:
    """Return a docstring as Markdown.

    >>> markdown_of("The body of ``POST``,\\n    in JSON.")
    'The body of `POST`,\\nin JSON.'
    """
    return inspect.cleandoc(re.sub(r"``([^`]+)``", r"`\1`", text))


def _docs_by_name(types: Iterable[Any]) -> dict[str, dict[str, str]]:
    classes: dict[type, None] = {}
    for kind in types:
        _collect(kind, classes)
    return {
        name: docs
        for kind in classes
        if (docs := field_docs(kind))
        # By its whole name where two have the same, as msgspec calls them then.
        for name in (kind.__name__, f"{kind.__module__}.{kind.__qualname__}")
    }


def _collect(kind: Any, found: dict[type, None]) -> None:
    """Add the structs that ``kind`` is made of."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        if kind not in found:
            found[kind] = None
            for field in msgspec.structs.fields(kind):
                _collect(field.type, found)
    else:
        for inner in getattr(kind, "__args__", ()):
            _collect(inner, found)


@functools.cache
def _bodies(module: str) -> dict[str, list[ast.stmt]]:
    """Return what stands in each class of a module."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {each.name: each.body for each in tree.body if isinstance(each, ast.ClassDef)}


@functools.cache
def field_docs(kind: type) -> dict[str, str]:
    """Return the docstring under each field of a class and its bases."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if not issubclass(each, msgspec.Struct) or each is msgspec.Struct:
            continue
        for field, after in pairwise(_bodies(each.__module__).get(each.__name__, [])):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
                and isinstance(after.value.value, str)
            ):
                found[field.target.id] = markdown_of(after.value.value)
    return found
