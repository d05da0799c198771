"""``/sign-in`` and ``/sign-out``: a key becomes a session of the page."""

from streaming.openapi import JSON, Answer, Body, Operation
from streaming.web._described import _parts as parts

FORM = "application/x-www-form-urlencoded"
HTML = {"text/html": parts.TEXT}
EITHER = {**HTML, "application/json": parts.REFUSAL}
KEY: JSON = {
    "type": "object",
    "properties": {
        "key": {"type": "string", "description": "The key."},
        "next": {"type": "string", "description": "The query of the page to go back to."},
    },
    "required": ["key"],
}
TOKEN: JSON = {
    "type": "object",
    "properties": {"csrf": {"type": "string", "description": "The session's token."}},
    "required": ["csrf"],
}
SIGNED_IN: JSON = {
    "type": "object",
    "properties": {"csrf": {"type": "string"}, "name": {"type": "string"}},
    "required": ["csrf", "name"],
}


def _page(*statuses: int) -> dict[int, Answer]:
    about = "For who accepts HTML: the form, which says what is wrong. Else JSON."
    return {status: Answer(about, EITHER) for status in statuses}


OPERATIONS = (
    Operation(
        "GET",
        "/sign-in",
        "showSignIn",
        "Page",
        "The form that asks for a key",
        answers={200: Answer("The form.", HTML)},
        errors=(404,),
        access="public",
    ),
    Operation(
        "POST",
        "/sign-in",
        "signIn",
        "Page",
        "Begin a session with a key",
        body=Body(KEY, {}, FORM),
        answers={
            200: Answer(
                "For who accepts JSON: the session's token, and whose it is.", {"application/json": SIGNED_IN}
            ),
            303: Answer("For who accepts HTML: to the page.", HTML, {"Location": "The page."}),
            **_page(401, 403, 429, 503),
        },
        errors=(404, 413),
        access="public",
    ),
    Operation(
        "POST",
        "/sign-out",
        "signOut",
        "Page",
        "End the session",
        "Needs no key: a browser whose session is over is to forget it too.",
        body=Body(TOKEN, {}, FORM),
        answers={
            204: Answer("For who accepts JSON: it is over."),
            303: Answer("For who accepts HTML: to the form.", HTML, {"Location": "The form."}),
            **_page(403),
        },
        errors=(404, 413, 503),
        access="public",
    ),
)
