"""``/doctor``: what is wrong on the way to this service."""

from msgspec import Struct

from streaming.doctor.findings import Change, Finding
from streaming.doctor.measured import Measured
from streaming.doctor.service import Facts
from streaming.openapi import Answer, Body, Operation, Parameter
from streaming.web import _ticks
from streaming.web._described import _parts as parts


class Findings(Struct):
    findings: list[Finding]
    """The worst first."""
    request_id: str


class Described(Struct):
    facts: Facts
    findings: list[Finding]


NAMES = {Change: "ChangeOfSetting"}
OPERATIONS = (
    Operation(
        "GET",
        "/doctor",
        "showDoctor",
        "Operation",
        "A page that examines the way to this service",
        answers={200: Answer("The page.", {"text/html": parts.TEXT})},
        access="read",
    ),
    Operation(
        "GET",
        "/doctor/ticks",
        "streamTicks",
        "Operation",
        "An event stream to examine the way with",
        "A greeting, a silence, then ticks that say when they were sent. No model is asked.",
        (
            Parameter(
                "count",
                "query",
                "How many ticks; all of them take a minute at most.",
                {"type": "integer", "minimum": 0, "maximum": _ticks.MOST_TICKS, "default": 20},
            ),
            Parameter(
                "every_ms",
                "query",
                "Between two ticks, in milliseconds.",
                {"type": "integer", "minimum": 1, "maximum": _ticks.MOST_EVERY_MS, "default": 100},
            ),
            Parameter(
                "silence_s",
                "query",
                f"The silence before them, in seconds; no more than {_ticks.MOST_SILENCE_SECONDS:g}.",
                {**parts.SECONDS, "default": 0},
            ),
            Parameter(
                "heartbeat",
                "query",
                "1: comments in the silence, as other event streams have them.",
                parts.FLAG,
            ),
            Parameter(
                "heartbeat_s",
                "query",
                "The same at this pace, in seconds.",
                parts.SECONDS,
            ),
        ),
        None,
        {200: Answer("The ticks.", {"text/event-stream": parts.events()}, {"Stream-Id": "`doctor`."})},
        (400,),
        "read",
    ),
    Operation(
        "POST",
        "/doctor/findings",
        "judgeMeasurements",
        "Operation",
        "Say what measurements mean",
        "What was not measured is left out, and not judged.",
        (),
        Body(Measured, {"Only the address": {"url": "https://sluice.example.com"}}),
        {200: Answer("What was found.", {"application/json": Findings})},
        (400, 413, 415),
        "read",
    ),
    Operation(
        "GET",
        "/doctor/service",
        "examineService",
        "Operation",
        "How this worker was started, and what is wrong with that",
        answers={200: Answer("Facts and findings.", {"application/json": Described})},
        access="admin",
    ),
)
