"""``/healthz`` and ``/readyz``."""

from typing import Literal

from msgspec import Struct

from streaming.openapi import Answer, Operation


class Alive(Struct):
    status: Literal["ok"]


class Ready(Struct):
    status: Literal["ok"]
    running: int
    """Runs that this worker produces now."""


OPERATIONS = (
    Operation(
        "GET",
        "/healthz",
        "isAlive",
        "Operation",
        "This process answers",
        answers={200: Answer("It does.", {"application/json": Alive})},
        access="public",
    ),
    Operation(
        "GET",
        "/readyz",
        "isReady",
        "Operation",
        "This process can take work",
        answers={200: Answer("It can.", {"application/json": Ready})},
        errors=(503,),
        access="public",
    ),
)
