"""What there is to know of each setting, read from the class that holds them and from its source.

A comment that stands alone after an empty line begins a section; the docstring
under a field is its explanation; its name's last word is its unit; a field left
out of the ``repr`` may hold a secret.
"""

import ast
import inspect
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from typing import Any, Literal, NamedTuple, get_args, get_origin

from streaming.settings import Settings

# Read from the file that another setting names, so no variable of its own.
NOT_VARIABLES = frozenset({"catalogue"})
UNITS = {"seconds": "seconds", "bytes": "bytes", "chars": "characters", "days": "days", "ms": "milliseconds"}


class Described(NamedTuple):
    """One setting."""

    field: str
    variable: str
    section: str
    explanation: str
    """Empty: it has no docstring."""
    kind: str
    """What a value looks like: ``text``, ``yes or no``, ``seconds``, or its choices."""
    default: str
    """As it would be written in the environment."""
    is_secret: bool


def described(settings: type[Any] = Settings) -> list[Described]:
    """Return every setting that has a variable, in the order of the class."""
    told = {name: (section, explanation) for name, section, explanation in _told(settings)}
    found = []
    for each in fields(settings):
        if each.name not in NOT_VARIABLES:
            section, explanation = told[each.name]
            found.append(
                Described(
                    each.name,
                    each.name.upper(),
                    section,
                    explanation,
                    _kind(each),
                    written(_default(each)),
                    not each.repr,
                )
            )
    return found


def written(value: Any) -> str:
    """Return a value as the environment would have it.

    >>> written(30.0), written(("a", "b")), written(False)
    ('30', 'a,b', 'false')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value)


def _told(settings: type[Any]) -> Iterator[tuple[str, str, str]]:
    """Yield each field's name, its section and its docstring, in one line."""
    source = inspect.getsource(settings)
    lines = source.splitlines()
    body = ast.parse(source).body[0]
    assert isinstance(body, ast.ClassDef)
    section, line_after_last = "", body.lineno
    for statement, following in zip(body.body, [*body.body[1:], None], strict=True):
        before = "" if statement is body.body[0] else lines[line_after_last - 1]
        section = _heading(before, lines[line_after_last : statement.lineno - 1]) or section
        line_after_last = statement.end_lineno or statement.lineno
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            yield statement.target.id, section, _docstring(following)


def _heading(first: str, between: list[str]) -> str:
    """Return the last comment that follows an empty line; ``first`` is the line before these."""
    heading = ""
    for before, line in zip([first, *between], between, strict=False):
        if not before.strip() and line.strip().startswith("#"):
            heading = line.strip().removeprefix("#").strip()
    return heading


def _docstring(statement: ast.stmt | None) -> str:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return " ".join(str(statement.value.value).split())
    return ""


def _kind(each: "Field[Any]") -> str:
    if get_origin(each.type) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(each.type) if choice)
    if each.type is bool:
        return "yes or no"
    if each.type in (int, float):
        unit = UNITS.get(each.name.rpartition("_")[2])
        return unit or ("whole number" if each.type is int else "number")
    return "text" if each.type is str else "list, by commas"


def _default(each: "Field[Any]") -> Any:
    if each.default is not MISSING:
        return each.default
    return each.default_factory() if each.default_factory is not MISSING else ""
