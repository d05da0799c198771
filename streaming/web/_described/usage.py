"""``/usage``: what was used."""

from msgspec import Struct

from streaming.accounts import Sum
from streaming.openapi import JSON, Answer, Operation, Parameter
from streaming.web._described import _parts as parts

DAY: JSON = {"type": "string", "format": "date", "examples": ["2026-11-21"]}


class UsageOfDays(Struct, rename={"from_": "from"}):
    """Sums, each with the day, principal and model it is of, as far as was asked for."""

    from_: str
    to: str
    principal: str
    """Whose; `all` for everybody's."""
    data: list[Sum]
    total: Sum | None
    """Of all of it; null where nothing was used."""


OPERATIONS = (
    Operation(
        "GET",
        "/usage",
        "getUsage",
        "Operation",
        "What was used",
        "One's own; with the scope `admin` also that of others. Days are of UTC.",
        (
            Parameter("from", "query", "The first day. Left out: 30 days.", DAY),
            Parameter("to", "query", "The last day. Left out: today.", DAY),
            Parameter(
                "by",
                "query",
                "What the sums are told apart by: some of day, principal, model, each once, with commas.",
                {**parts.TEXT, "default": "day,model"},
            ),
            Parameter("principal", "query", "Whose; `all` for everybody's.", parts.TEXT),
        ),
        None,
        {200: Answer("The sums.", {"application/json": UsageOfDays})},
        (400, 404),
        "read",
    ),
)
