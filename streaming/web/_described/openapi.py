"""``/openapi.json`` and ``/docs``."""

from streaming.openapi import Answer, Operation, Parameter
from streaming.web._described import _parts as parts

OPERATIONS = (
    Operation(
        "GET",
        "/openapi.json",
        "getOpenAPI",
        "Operation",
        "This description, as OpenAPI 3.1",
        parameters=(Parameter("If-None-Match", "header", "The `ETag` of the one you have.", parts.TEXT),),
        answers={
            200: Answer("The document.", {"application/json": parts.OBJECT}, {"ETag": "Its version."}),
            304: Answer("You have it."),
        },
        access="public",
    ),
    Operation(
        "GET",
        "/docs",
        "showDocs",
        "Operation",
        "This description, to read",
        answers={200: Answer("A page.", {"text/html": parts.TEXT})},
        access="public",
    ),
)
