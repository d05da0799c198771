"""``/usage``: what was used."""

from msgspec import Struct

from streaming.accounts import Runs, Sum
from streaming.openapi import Answer, Operation, Parameter


class UsageReport(Struct, rename={"from_": "from"}):
    from_: str
    to: str
    principal: str
    """Whose, or `all`."""
    data: list[Sum]
    """A sum for each of what `by` names."""
    total: Sum | None
    """Absent where nothing was used."""


_DAY = {"type": "string", "format": "date", "examples": ["2026-11-21"]}
OPERATIONS = (
    Operation(
        "GET",
        "/usage",
        "showUsage",
        "Operation",
        "What was used on which day, of which model",
        "One's own; with the scope `admin` anybody's. A run belongs to the day of UTC on which it ended.",
        parameters=(
            Parameter("from", "query", "The first day; 29 days before `to`, if not given.", _DAY),
            Parameter("to", "query", "The last day; today, if not given.", _DAY),
            Parameter(
                "by",
                "query",
                "What to tell apart: some of `day`, `principal` and `model`, with commas between.",
                {
                    "type": "string",
                    "pattern": "^(day|principal|model)(,(day|principal|model))*$",
                    "default": "day,model",
                },
            ),
            Parameter(
                "principal",
                "query",
                "Whose: an id, or `all`. Others' need the scope `admin`.",
                {"type": "string", "maxLength": 200},
            ),
        ),
        answers={200: Answer("The sums.", {"application/json": UsageReport})},
        errors=(400,),
        access="read",
    ),
)
NAMES = {Sum: "UsageSum", Runs: "UsageRuns"}
