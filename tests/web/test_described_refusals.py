"""Where a key is needed, every address refuses with a status and a type that its description has."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from flask import Flask
from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine
from werkzeug.test import TestResponse

from app import create_app
from streaming.errors import RequestTimeout, StoreUnavailable
from streaming.http_refusals import refusal_of
from streaming.openapi._refusals import NAMES as REFUSED
from streaming.openapi._refusals import Refusal
from streaming.web._described import operations
from tests.web.conftest import FAST, _end

ORIGIN = "http://localhost"
OURS = {"Origin": ORIGIN, "Sec-Fetch-Site": "same-origin"}
FOREIGN = {"Origin": "https://other.example", "Sec-Fetch-Site": "cross-site"}
HTML, JSON = {"Accept": "text/html"}, {"Accept": "application/json"}
ALL = [(each.method, each.path) for each in operations()]
FORMS = [("POST", path) for path in ("/", "/stop", "/rename", "/delete", "/sign-in", "/sign-out")]
PAGES = [("GET", "/"), *FORMS]


@pytest.fixture(scope="module")
def app() -> Iterator[Flask]:
    app = create_app(replace(FAST, auth="keys"))
    yield app
    _end(app.extensions["streams"])


@pytest.fixture(scope="module")
def told(app: Flask) -> dict[str, Any]:
    found: dict[str, Any] = app.test_client().get("/openapi.json").json
    return found


def described(told: dict[str, Any], method: str, path: str, status: int) -> list[str]:
    """Return the media types of an answer. Fails where the status is not described."""
    answer = told["paths"][path][method.lower()]["responses"][str(status)]
    if "$ref" in answer:
        answer = told["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    return [*answer.get("content", {})]


def check(told: dict[str, Any], method: str, path: str, response: TestResponse) -> None:
    assert response.mimetype in described(told, method, path, response.status_code), response.status


def ask(app: Flask, method: str, path: str, headers: dict[str, str], **sent: Any) -> TestResponse:
    address = re.sub(r"{\w+}", "input", path)
    return app.test_client().open(address, method=method, headers=headers, buffered=True, **sent)


@pytest.mark.parametrize("accept", [HTML, JSON, {}], ids=["HTML", "JSON", "anything"])
@pytest.mark.parametrize(("method", "path"), ALL)
def test_who_has_no_key_is_refused_as_described(
    app: Flask, told: dict[str, Any], method: str, path: str, accept: dict[str, str]
) -> None:
    response = ask(app, method, path, accept)

    check(told, method, path, response)
    needs_key = told["paths"][path][method.lower()]["security"]
    assert (response.status_code == 401) == bool(needs_key), response.status


@pytest.mark.parametrize("accept", [HTML, JSON, {}], ids=["HTML", "JSON", "anything"])
@pytest.mark.parametrize(("method", "path"), ALL)
def test_what_another_sites_page_sends_is_refused_as_described(
    app: Flask, told: dict[str, Any], method: str, path: str, accept: dict[str, str]
) -> None:
    response = ask(app, method, path, FOREIGN | accept)

    check(told, method, path, response)
    if method != "GET":
        assert response.status_code == 403


@pytest.mark.parametrize("accept", [HTML, JSON], ids=["HTML", "JSON"])
@pytest.mark.parametrize(("method", "path"), FORMS)
def test_a_form_of_another_session_is_refused_as_described(
    app: Flask, told: dict[str, Any], method: str, path: str, accept: dict[str, str]
) -> None:
    client = app.test_client()
    key = app.extensions["access"].keys.issue(("run",), "Ana").text
    assert client.post("/sign-in", data={"key": key}, headers=OURS | JSON).status_code == 200

    response = client.post(path, data={"csrf": "another's", "key": "wrong"}, headers=OURS | accept)

    if path != "/sign-out":  # of which anybody may have as many as they like
        check(told, method, path, response)
        assert response.status_code == (401 if path == "/sign-in" else 403)


@pytest.mark.parametrize("accept", [HTML, JSON], ids=["HTML", "JSON"])
@pytest.mark.parametrize(("method", "path"), PAGES)
def test_a_store_that_is_away_is_told_as_described(
    told: dict[str, Any], method: str, path: str, accept: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(replace(FAST, auth="keys"))
    client = app.test_client()
    keys = app.extensions["access"].keys
    text = keys.issue(("run",), "Ana").text
    assert client.post("/sign-in", data={"key": text}, headers=OURS | JSON).status_code == 200

    def fails(*_: Any) -> Any:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(keys, "look_up", fails)
    try:
        response = client.open(path, method=method, headers=OURS | accept, data={"key": text})
        check(told, method, path, response)
        assert response.status_code == 503 or path == "/sign-out"
    finally:
        _end(app.extensions["streams"])


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (LimitRequestLine(5000, 4094), 414),
        (LimitRequestHeaders("too many"), 431),
        (RequestTimeout("slow"), 408),
    ],
)
def test_what_the_server_refuses_before_any_view_is_described(
    told: dict[str, Any], error: Exception, status: int
) -> None:
    head, _, body = refusal_of(error).encode().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    (kind,) = re.findall(rb"Content-Type: (\S+)", head)

    saying = [
        (path, method)
        for path, methods in told["paths"].items()
        for method, operation in methods.items()
        if str(status) in operation["responses"]
    ]
    assert saying
    for path, method in saying:
        assert described(told, method.upper(), path, status) == [kind.decode()]
    for dialect in ("", "OpenAI"):
        answer = told["components"]["responses"][f"{REFUSED[status]}{dialect}"]
        assert answer["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Refusal"}
        assert "X-Request-Id" not in answer["headers"]
    assert msgspec.json.decode(body, type=Refusal).error.request_id
