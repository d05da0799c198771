"""``/``: the page, and the forms it works by without a script."""

from typing import Any

from streaming.openapi import JSON, Answer, Body, Operation, Parameter
from streaming.web._described import _parts as parts

FORM = "application/x-www-form-urlencoded"
HTML = {"text/html": parts.TEXT}
EITHER = {**HTML, "application/json": parts.REFUSAL}
GONE_THERE = Answer("Done; `Location` is where to look.", HTML, {"Location": "The page that shows it."})


def _form(about: dict[str, str], *required: str) -> JSON:
    return {
        "type": "object",
        "properties": {name: {"type": "string", "description": said} for name, said in about.items()},
        "required": list(required),
    }


def _shown(name: str, about: str) -> Parameter:
    return Parameter(name, "query", about, parts.TEXT)


QUESTION = _form(
    {
        "prompt": "The question.",
        "thread": "The conversation it belongs to.",
        "follows": "The turn it comes after.",
        "replaces": "The turn in whose place it stands.",
        "instructions": "System instructions.",
        "answerer": "`model:<name>` or `runnable:<name>`.",
        "resume": "The answer to a graph's question.",
        "message_id": "A name for this form: sent twice, it asks once.",
    }
)
ASKED: dict[str, Any] = {"A question": {"prompt": "How do I resume a stream?"}}
ERRORS = (400, 404, 409, 410, 413, 415, 422)


def _refused(*statuses: int) -> dict[int, Answer]:
    """The page tells a refusal on the page; what keeps it from being shown is told in JSON."""
    page = Answer("The page, which says what is wrong.", HTML)
    either = Answer("The page, which says what is wrong; or JSON, where it cannot be shown.", EITHER)
    return {status: either if status in (404, 413, 503) else page for status in statuses}


OPERATIONS = (
    Operation(
        "GET",
        "/",
        "showPage",
        "Page",
        "The page",
        parameters=(
            _shown("thread", "The conversation to show."),
            _shown("turn", "The path to this turn."),
            _shown("edit", "The turn whose question is to be edited."),
            _shown("options", "Show the form to rename or delete it."),
            _shown("stream", "The run to show, if it is in no thread."),
            _shown("after", "List conversations after this one."),
        ),
        answers={200: Answer("The page.", HTML), **_refused(400, 401, 403, 404, 410, 429, 503)},
        access="read",
    ),
    Operation(
        "POST",
        "/",
        "askByForm",
        "Page",
        "Ask, by a form",
        body=Body(QUESTION, ASKED, FORM),
        answers={303: GONE_THERE, **_refused(*ERRORS, 401, 403, 429, 503)},
    ),
    Operation(
        "POST",
        "/stop",
        "stopByForm",
        "Page",
        "Stop a run, by a form",
        body=Body(_form({"stream": "The run.", "thread": "Its conversation."}, "stream"), {}, FORM),
        answers={303: GONE_THERE, **_refused(400, 401, 403, 404, 410, 429, 503)},
        errors=(413,),
    ),
    Operation(
        "POST",
        "/rename",
        "renameByForm",
        "Page",
        "Rename a conversation, by a form",
        body=Body(_form({"thread": "It.", "title": "Its new title."}, "thread", "title"), {}, FORM),
        answers={303: GONE_THERE, **_refused(400, 401, 403, 404, 429, 503)},
        errors=(413,),
    ),
    Operation(
        "POST",
        "/delete",
        "deleteByForm",
        "Page",
        "Delete a conversation, by a form",
        body=Body(_form({"thread": "It."}, "thread"), {}, FORM),
        answers={303: GONE_THERE, **_refused(400, 401, 403, 404, 429, 503)},
        errors=(413,),
    ),
)
