"""Who was not let in: a line of the log that says why and from where, and never with what; and a counter."""

import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask

from app import create_app
from streaming.errors import NotAuthenticated
from streaming.keyring import make
from streaming.logs import JSONFormatter, LineFormatter
from streaming.metrics import Metrics
from streaming.web import _refused
from streaming.web._refused import RefusalLog
from tests.web.conftest import FAST
from tests.web.test_sign_in import Place

Lines = list[logging.LogRecord]


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place()
    yield made
    made.end()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "streaming")
    return caplog


def lines(log: pytest.LogCaptureFixture, message: str = "access refused") -> Lines:
    return [record for record in log.records if record.message == message]


def shown(records: Lines) -> str:
    return "\n".join(each.format(record) for record in records for each in (LineFormatter(), JSONFormatter()))


def counted(place: Place, at: str, why: str) -> float:
    metrics: Metrics = place.app.extensions["metrics"]
    return metrics.value("sluice_access_refused_total", at, why)


def ask(place: Place, key: str, path: str = "/threads") -> int:
    client = place.app.test_client()
    head = {"Authorization": f"Bearer {key}"} if key else {}
    return client.get(path, headers=head, environ_base={"REMOTE_ADDR": "192.0.2.7"}).status_code


def test_a_refused_key_is_a_line_with_its_id_and_where_it_came_from(
    place: Place, log: pytest.LogCaptureFixture
) -> None:
    place.keys.revoke(place.ana.key.id)
    assert ask(place, place.ana.text, "/streams/st_x?prompt=private") == 401
    (line,) = lines(log)
    assert line.levelname == "WARNING"
    text = LineFormatter().format(line)
    for field in (
        "why=key_revoked",
        f"key_id={place.ana.key.id}",
        "address=192.0.2.7",
        "route=/streams/<stream_id>",
        "method=GET",
        "request_id=req_",
    ):
        assert field in text
    assert "private" not in text


@pytest.mark.parametrize(
    "harm",
    [
        lambda text: text[:-1] + ("a" if text[-1] != "a" else "b"),
        lambda text: text[:-1],
        lambda text: text + "x",
        lambda text: text.rpartition("-")[2],
        lambda text: "hunter2hunter2",
    ],
)
def test_no_line_holds_what_was_shown_not_even_a_key_with_a_letter_wrong(
    place: Place, log: pytest.LogCaptureFixture, harm: Any
) -> None:
    given = harm(place.ana.text)
    assert ask(place, given) == 401
    assert place.browser().sign_in(given).status_code == 401
    assert len(lines(log)) == 2
    said = shown(lines(log))
    secret = place.ana.text.rpartition("-")[2]
    assert not any(part in said for part in (given[20:52] or given, secret[:12], secret[-12:]))


def test_each_reason_is_counted(place: Place, log: pytest.LogCaptureFixture) -> None:
    expired = place.keys.issue(("run",), expires=1.0)
    for key, why in (("", "no_key"), (make(["run"]).text, "invalid_key"), (expired.text, "key_expired")):
        ask(place, key)
        assert counted(place, "request", why) == 1
    assert ask(place, place.keys.issue(("metrics",)).text) == 403
    assert counted(place, "request", "forbidden") == 1
    levels = [(line.why, line.levelname) for line in lines(log)]  # type: ignore[attr-defined]
    assert levels == [
        ("no_key", "INFO"),
        ("invalid_key", "WARNING"),
        ("key_expired", "WARNING"),
        ("forbidden", "WARNING"),
    ]


def test_who_is_let_in_is_no_line(place: Place, log: pytest.LogCaptureFixture) -> None:
    assert ask(place, place.ana.text) == 200
    assert ask(place, "", "/healthz") == 200
    assert lines(log) == []


def test_another_sites_request_is_a_line(place: Place, log: pytest.LogCaptureFixture) -> None:
    browser = place.browser(key=place.ana.text)
    answer = browser.post("/streams", json={"prompt": "hi"}, site="cross-site", origin="https://evil.test")
    assert answer.status_code == 403
    assert counted(place, "request", "origin") == 1
    assert "evil" not in shown(lines(log))


# Signing in


def test_signing_in_is_a_line_and_so_is_failing_to(place: Place, log: pytest.LogCaptureFixture) -> None:
    unknown = make(["run"])
    assert place.browser().sign_in(unknown.text).status_code == 401
    place.browser(key=place.ana.text)
    (refused,) = lines(log)
    assert (refused.at, refused.why, refused.key_id) == (  # type: ignore[attr-defined]
        "sign_in",
        "invalid_key",
        unknown.key.id,
    )
    (signed_in,) = lines(log, "signed in")
    assert (signed_in.key_id, signed_in.owner) == (  # type: ignore[attr-defined]
        place.ana.key.id,
        place.ana.key.principal_id,
    )
    assert counted(place, "sign_in", "invalid_key") == 1
    assert unknown.text not in shown(log.records)
    assert place.ana.text not in shown(log.records)


def test_the_line_says_what_the_answer_does_not(place: Place, log: pytest.LogCaptureFixture) -> None:
    place.keys.revoke(place.ana.key.id)
    assert "revoked" not in place.browser().sign_in(place.ana.text).text
    assert counted(place, "sign_in", "key_revoked") == 1


def test_who_has_to_wait_is_counted(log: pytest.LogCaptureFixture) -> None:
    place = Place(sign_in_failures_per_minute=1)
    place.stop_the_clock()
    try:
        browser = place.browser()
        assert [browser.sign_in("x").status_code for _ in range(3)] == [401, 429, 429]
        assert counted(place, "sign_in", "too_many_attempts") == 2
    finally:
        place.end()


def test_a_key_that_may_not_use_the_page_is_one_line(place: Place, log: pytest.LogCaptureFixture) -> None:
    assert place.browser().sign_in(place.keys.issue(("metrics",)).text).status_code == 403
    assert [line.why for line in lines(log)] == ["forbidden"]  # type: ignore[attr-defined]


# Many


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def app() -> Iterator[Flask]:
    made = create_app(replace(FAST))
    yield made
    streams = made.extensions["streams"]
    streams.drain(0, 0)
    streams.close()


def test_a_flood_is_few_lines_and_all_of_it_is_counted(app: Flask, log: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    metrics: Metrics = app.extensions["metrics"]
    refusals = RefusalLog(metrics, clock)
    guess = NotAuthenticated("no", code="invalid_key")

    def note(many: int, error: NotAuthenticated = guess) -> None:
        with app.test_request_context("/threads") as context:
            for _ in range(many):
                refusals.note(context.request, error)

    note(1000)
    assert len(lines(log)) == _refused.LINES_PER_WINDOW
    note(1, NotAuthenticated("no", code="key_revoked"))
    assert len(lines(log)) == _refused.LINES_PER_WINDOW + 1, "a flood of one kind hides no other"
    clock.now += _refused.WINDOW_SECONDS
    note(1)
    last = LineFormatter().format(lines(log)[-1])
    assert re.search(rf"\bleft_out={1000 - _refused.LINES_PER_WINDOW}\b", last)
    assert metrics.value("sluice_access_refused_total", "request", "invalid_key") == 1001


def test_no_code_that_a_caller_could_make_up_is_a_label(app: Flask) -> None:
    metrics: Metrics = app.extensions["metrics"]
    metrics.refused("request", "made up")
    assert metrics.value("sluice_access_refused_total", "request", "other") == 1
