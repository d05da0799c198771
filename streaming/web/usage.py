"""``GET /usage``: what was used on which day, of which model; one's own, or with ``admin`` everybody's."""

import re
from datetime import date, timedelta
from typing import Any

from flask import Blueprint, Response, current_app, request

from streaming.accounts import Accounts, By, shown, summed
from streaming.errors import InvalidRequest, NotFound, PermissionDenied
from streaming.settings import Settings
from streaming.spending import today
from streaming.streams import Streams
from streaming.web import _bodies, _principals, _query
from streaming.web._errors import json_response

DIMENSIONS: tuple[By, ...] = ("day", "principal", "model")
DAYS = 30
MOST_DAYS = 400
MOST_DAYS_OF_ALL = 100
"""Of everybody's accounts at once: they are many."""
ALL = "all"


def create(streams: Streams, settings: Settings) -> Blueprint:
    blueprint = Blueprint("usage", __name__)

    @blueprint.get("/usage")
    def show() -> Response:
        for name in request.args:
            if name not in ("from", "to", "by", "principal"):
                raise _bodies.unknown_field(name)
        principal = _whose(_query.one(request, "principal"))
        first, last = _days(everybody=principal is None)
        by = _by()
        accounts: Accounts | None = current_app.extensions.get("accounts")
        if accounts is None:
            raise NotFound("no accounts are kept here")
        rows = accounts.rows(first, last, principal, by)
        told: dict[str, Any] = {
            "from": first,
            "to": last,
            "principal": ALL if principal is None else principal,
        }
        told["data"] = [shown(row, by) for row in rows]
        told["total"] = next((shown(row, ()) for row in summed(rows, ())), None)
        return json_response(told)

    return blueprint


def _whose(asked: str | None) -> str | None:
    """Return the id of the principal, ``None`` for all. Raises `PermissionDenied`."""
    me = _principals.current()
    if asked is None or asked == me.id:
        return me.id
    if not me.may("admin"):
        raise PermissionDenied("what others used needs the scope admin, which this key does not have")
    if len(asked) > 200:
        raise InvalidRequest("principal: at most 200 characters", code="wrong_value", param="principal")
    return None if asked == ALL else asked


def _days(everybody: bool) -> tuple[str, str]:
    last = _day("to") or date.fromisoformat(today())
    first = _day("from") or last - timedelta(days=min(DAYS - 1, (last - date.min).days))
    if first > last:
        raise InvalidRequest("from: it is after to", code="wrong_value", param="from")
    most = MOST_DAYS_OF_ALL if everybody else MOST_DAYS
    if (last - first).days >= most:
        raise InvalidRequest(f"from: at most {most} days before to", code="wrong_value", param="from")
    return first.isoformat(), last.isoformat()


def _day(name: str) -> date | None:
    text = _query.one(request, name)
    if text is None:
        return None
    try:
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):  # and no week, which Python knows too
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise InvalidRequest(f"{name}: a day such as 2026-11-21", code="wrong_value", param=name)


def _by() -> tuple[By, ...]:
    text = _query.one(request, "by")
    asked = ("day,model" if text is None else text).split(",")
    by = tuple(name for name in DIMENSIONS if name in asked)
    if len(by) != len(asked):
        known = ", ".join(DIMENSIONS)
        raise InvalidRequest(f"by: some of {known}, each once", code="wrong_value", param="by")
    return by
