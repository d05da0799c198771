"""What is open when its right ends: told so in every dialect, and found by one question to the store."""

import json
import logging
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

import gevent
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from streaming import plugins, scope
from streaming.errors import NotAuthenticated, StoreUnavailable
from streaming.events import Done, Token
from streaming.formats import Wants, WireFormat
from streaming.keyring import Issued
from streaming.keys import Key
from streaming.web import _responses, _rights
from streaming.web._rights import Rights
from tests.doubles import ScriptedSource, eventually, parse_event_stream
from tests.web.test_sign_in import HTTPS, Place

CHAT = {"model": "demo", "messages": [{"role": "user", "content": "hi"}]}
SAYING = {"content": [{"type": "input_text", "text": "hi"}], "attachments": [], "inference_options": {}}
SAID = b"the first word"


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A service whose model says a word and is silent then, and which looks at keys when a test says so."""
    monkeypatch.setattr(_rights, "LOOK_SECONDS", 3600.0)
    made = Place()
    made.app.extensions["streams"]._load_source = lambda name: ScriptedSource([Token(SAID.decode())], 60.0)
    yield made
    made.end()


def rights(place: Place) -> Rights:
    found: Rights = place.app.extensions["access"].rights
    return found


def bearer(issued: Issued) -> dict[str, str]:
    return {"Authorization": f"Bearer {issued.text}"}


def held(place: Place) -> int:
    """Return how many connections are open under something that can end."""
    return sum(map(len, rights(place)._open.values()))


def start(place: Place, key: Issued | None = None, **fields: Any) -> str:
    """Start a run that goes on without a reader; return its id once it has said something."""
    body = {"prompt": "hi", "on_disconnect": "continue", **fields}
    head = bearer(key or place.ana)
    answer = place.app.test_client().post("/streams", json=body, headers=head)
    assert answer.status_code == 201, answer.text
    stream_id: str = answer.json["stream_id"]
    client = place.app.test_client()
    eventually(lambda: SAID.decode() in client.get(f"/streams/{stream_id}", headers=head).text)
    return stream_id


class Asked:
    """A request that is being answered, and what has come of the answer."""

    def __init__(
        self,
        place: Place,
        method: str,
        path: str,
        key: Issued | None = None,
        client: FlaskClient | None = None,
        **options: Any,
    ) -> None:
        self._method, self._path = method, path
        self._client = client or place.app.test_client()
        self._options = options if client else {"headers": bearer(key or place.ana)} | options
        self.body = b""
        before = held(place)
        self._greenlet = gevent.spawn(self._ask)
        eventually(lambda: held(place) > before)

    def _ask(self) -> TestResponse:
        answer = self._client.open(self._path, method=self._method, **self._options)
        for block in answer.iter_encoded():
            self.body += block
        return answer

    def begun(self) -> "Asked":
        """Wait for the first word; return this."""
        eventually(lambda: SAID in self.body)
        return self

    def end(self) -> TestResponse:
        answer: TestResponse = self._greenlet.get(timeout=5)
        return answer

    def last(self) -> Any:
        """Return the data of the last message, once it has ended."""
        assert self.end().status_code == 200
        return json.loads(self.body.decode().strip().splitlines()[-1].removeprefix("data: "))


def revoke(place: Place) -> None:
    place.keys.revoke(place.ana.key.id)
    rights(place).look()


def state(place: Place, stream_id: str) -> str:
    return str(place.app.extensions["streams"]._log.head(stream_id).state)


# Every dialect


@pytest.mark.parametrize("format_name", ["native", "simple", "text", "ndjson"])
def test_a_reader_is_told_in_its_format(place: Place, format_name: str) -> None:
    asked = Asked(place, "GET", f"/streams/{start(place)}?format={format_name}").begun()
    revoke(place)
    error = asked.last()["error"]
    assert (error["type"], error["code"]) == ("not_authenticated", "key_revoked")
    assert not error["retryable"]
    assert error["partial"]


def test_what_it_is_told_has_no_id_since_the_log_does_not_hold_it(place: Place) -> None:
    asked = Asked(place, "GET", f"/streams/{start(place)}?format=native").begun()
    revoke(place)
    *before, last = parse_event_stream(asked.end().data or asked.body).heard
    assert last.last_event_id == before[-1].last_event_id, "it says where the client was"


def test_a_feed_tells_it_of_each_of_its_streams(place: Place) -> None:
    first, second = start(place), start(place)
    asked = Asked(place, "GET", f"/streams?follow={first}&follow={second}").begun()
    revoke(place)
    asked.end()
    told = parse_event_stream(asked.body).heard
    ends = {each.type: json.loads(each.data) for each in told if json.loads(each.data).get("done")}
    assert {name: said["error"]["code"] for name, said in ends.items()} == dict.fromkeys(
        (first, second), "key_revoked"
    )


def test_a_chat_completion_ends_in_an_error_and_without_done(place: Place) -> None:
    asked = Asked(place, "POST", "/v1/chat/completions", json={**CHAT, "stream": True}).begun()
    revoke(place)
    assert asked.last()["error"]["code"] == "invalid_api_key"
    assert b"[DONE]" not in asked.body


def test_a_response_ends_in_an_error_and_not_as_failed(place: Place) -> None:
    body = {"model": "demo", "input": "hi", "stream": True}
    asked = Asked(place, "POST", "/v1/responses", json=body).begun()
    revoke(place)
    last = asked.last()
    assert (last["type"], last["code"]) == ("error", "invalid_api_key")
    assert b"response.failed" not in asked.body, "it may go on, and have another end"


def test_chatkit_is_told_in_a_sentence_and_not_to_try_again(place: Place) -> None:
    listed = {"type": "threads.list", "params": {}}
    # Its library takes a while to load.
    place.app.test_client().post("/chatkit", json=listed, headers=bearer(place.ana))
    body = {"type": "threads.create", "params": {"input": SAYING}}
    asked = Asked(place, "POST", "/chatkit", json=body).begun()
    revoke(place)
    said = [json.loads(line.removeprefix("data: ")) for line in asked_lines(asked)]
    (error,) = [each for each in said if each["type"] == "error"]
    assert "revoked" in error["message"]
    assert not error["allow_retry"]


def asked_lines(asked: Asked) -> list[str]:
    asked.end()
    return [line for line in asked.body.decode().splitlines() if line.startswith("data: ")]


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/chat/completions", CHAT), ("/v1/responses", {"model": "demo", "input": "hi"})],
)
def test_who_waits_for_a_whole_answer_gets_a_status(place: Place, path: str, body: dict[str, Any]) -> None:
    asked = Asked(place, "POST", path, json=body)
    revoke(place)
    answer = asked.end()
    assert answer.status_code == 401
    assert json.loads(asked.body)["error"]["code"] == "invalid_api_key"


def test_a_poll_that_waits_gets_a_status(place: Place) -> None:
    stream_id = start(place)
    client = place.app.test_client()
    cursor = client.get(f"/streams/{stream_id}", headers=bearer(place.ana)).json["cursor"]
    asked = Asked(place, "GET", f"/streams/{stream_id}?wait=20&after={cursor}")
    revoke(place)
    assert asked.end().status_code == 401
    error = json.loads(asked.body)["error"]
    assert (error["type"], error["code"]) == ("not_authenticated", "key_revoked")


def test_a_question_that_is_no_run_is_taken_back(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent:
        def embed(self, model: str, body: dict[str, Any]) -> bytes:
            scope.current().sleep(60.0)
            return b"{}"

    monkeypatch.setattr(place.app.extensions["streams"].questions, "_relay", Silent())
    asked = Asked(place, "POST", "/v1/embeddings", json={"model": "demo", "input": "hi"})
    revoke(place)
    assert asked.end().status_code == 401
    assert json.loads(asked.body)["error"]["code"] == "invalid_api_key"


def test_the_doctors_ticks_end(place: Place) -> None:
    asked = Asked(place, "GET", "/doctor/ticks?count=2&every_ms=5000")
    revoke(place)
    assert asked.end().status_code == 200


@pytest.mark.parametrize("name", plugins.names("formats"))
def test_every_format_has_words_for_it(place: Place, name: str) -> None:
    wire_format: WireFormat = plugins.create("formats", name, Wants(request={"model": "demo"}))
    with place.app.test_request_context():
        told = _responses._in_band(NotAuthenticated("this key was revoked", code="key_revoked"), wire_format)
    if wire_format.media_type == "application/json":
        return  # a whole answer, which gets a status instead
    assert any(b"this key was revoked" in message.data for message in told)
    assert all(not message.id for message in told)


# What ends it, and what does not


def test_an_expired_key_ends_what_is_open_and_its_runs_go_on(place: Place) -> None:
    soon = place.keys.issue(("run",), expires=time.time() + 0.5)
    stream_id = start(place, soon)
    asked = Asked(place, "GET", f"/streams/{stream_id}?format=native", soon).begun()
    rights(place).look()
    eventually(lambda: time.time() > (soon.key.expires or 0))
    rights(place).look()
    assert asked.last()["error"]["code"] == "key_expired"
    assert state(place, stream_id) == "running"


def test_a_rotation_ends_what_the_old_key_has_open_once_it_is_not_taken_and_no_run(place: Place) -> None:
    stream_id = start(place)
    asked = Asked(place, "GET", f"/streams/{stream_id}?format=native").begun()
    place.keys.rotate(place.ana.key.id, 60.0)
    rights(place).look()
    assert held(place) == 1, "within the grace it goes on"
    place.keys.rotate(place.ana.key.id, 0.0)
    rights(place).look()
    assert asked.last()["error"]["code"] == "key_revoked"
    assert state(place, stream_id) == "running"


def test_what_others_have_open_goes_on(place: Place) -> None:
    mine = Asked(place, "GET", f"/streams/{start(place)}?format=native").begun()
    others_run = start(place, place.ben)
    Asked(place, "GET", f"/streams/{others_run}?format=native", place.ben).begun()
    revoke(place)
    rights(place).look()
    mine.end()
    assert held(place) == 1
    assert state(place, others_run) == "running"


def test_a_revoked_keys_runs_are_cancelled_whoever_listens(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "streaming")
    stream_id = start(place)
    shares = place.keys.issue(("read",), owner=place.ana.key.principal_id)
    asked = Asked(place, "GET", f"/streams/{stream_id}?format=native", shares).begun()
    revoke(place)
    assert state(place, stream_id) == "running", "readers at other workers are to hear why first"
    rights(place).look()
    last = asked.last()
    assert (last["type"], last["finish_reason"]) == ("done", "cancelled")
    assert state(place, stream_id) == "cancelled"
    (line,) = [record for record in caplog.records if "their key was revoked" in record.message]
    assert (line.key_id, line.streams) == (place.ana.key.id, 1)  # type: ignore[attr-defined]


def test_a_run_that_could_not_be_cancelled_is_tried_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream_id = start(place)
    cancel, tries = rights(place).cancel, list[str]()

    def fails(stream_id: str) -> None:
        tries.append(stream_id)
        raise StoreUnavailable("gone")

    monkeypatch.setattr(rights(place), "cancel", fails)
    revoke(place)
    rights(place).look()
    eventually(lambda: tries == [stream_id])
    monkeypatch.setattr(rights(place), "cancel", cancel)
    eventually(lambda: not rights(place)._stopping)
    rights(place).look()
    eventually(lambda: state(place, stream_id) == "cancelled")


def test_the_runs_of_another_key_with_the_same_owner_go_on(place: Place) -> None:
    second = place.keys.issue(("run",), owner=place.ana.key.principal_id)
    stream_id = start(place, second)
    revoke(place)
    rights(place).look()
    assert state(place, stream_id) == "running"


def test_signing_out_ends_what_the_session_has_open_and_no_run(place: Place) -> None:
    browser = place.browser(key=place.ana.text)
    stream_id = browser.ask()
    asked = Asked(
        place, "GET", f"/streams/{stream_id}?format=native", client=browser.client, base_url=HTTPS
    ).begun()
    other = place.browser(key=place.ana.text)
    rights(place).look()
    assert held(place) == 1
    assert browser.post("/sign-out", {"csrf": browser.token()}).status_code == 303
    rights(place).look()
    assert asked.last()["error"]["code"] == "session_ended"
    assert state(place, stream_id) == "running"
    assert other.get("/").status_code == 200


def test_a_session_ends_with_its_key_in_what_it_has_open_too(place: Place) -> None:
    browser = place.browser(key=place.ana.text)
    stream_id = browser.ask()
    asked = Asked(
        place, "GET", f"/streams/{stream_id}?format=native", client=browser.client, base_url=HTTPS
    ).begun()
    revoke(place)
    assert asked.last()["error"]["code"] == "key_revoked"
    rights(place).look()
    eventually(lambda: state(place, stream_id) == "cancelled")


# What it costs


def test_all_connections_of_a_worker_are_one_question_to_the_store(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, others = start(place), start(place, place.ben)
    for _ in range(5):
        Asked(place, "GET", f"/streams/{mine}?format=native").begun()
        Asked(place, "GET", f"/streams/{others}?format=native", place.ben).begun()
    store = place.keys._store
    questions: list[set[str]] = []

    def ask(key_ids: Collection[str]) -> dict[str, Key]:
        questions.append(set(key_ids))
        return {key_id: found for key_id in key_ids if (found := store.find(key_id))}

    monkeypatch.setattr(store, "find_several", ask)
    rights(place).look()
    assert questions == [{place.ana.key.id, place.ben.key.id}]
    assert held(place) == 10


def test_nothing_is_looked_at_where_nothing_is_open(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_rights, "LOOK_SECONDS", 0.01)
    place.app.extensions["streams"]._load_source = lambda name: ScriptedSource([Token("a"), Done("stop")])
    client = place.app.test_client()
    assert client.get("/stream?prompt=hi", headers=bearer(place.ana)).status_code == 200
    eventually(lambda: rights(place)._looking is None)
    assert not held(place)
    assert not rights(place)._runs
    assert not rights(place)._started_by


def test_in_the_open_mode_nobody_is_looked_at() -> None:
    place = Place(auth="open")
    try:
        assert place.app.test_client().get("/stream?prompt=hi").status_code == 200
        assert rights(place)._looking is None
    finally:
        place.end()


def test_a_store_that_is_away_ends_nothing_and_is_asked_again(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_rights, "LOOK_SECONDS", 0.01)
    asked = Asked(place, "GET", f"/streams/{start(place)}?format=native").begun()
    store = place.keys._store
    found: Callable[[Collection[str]], dict[str, Key]] = store.find_several
    tries: list[int] = []

    def fails(key_ids: Collection[str]) -> dict[str, Key]:
        tries.append(1)
        raise StoreUnavailable("gone")

    monkeypatch.setattr(store, "find_several", fails)
    place.keys.revoke(place.ana.key.id)
    eventually(lambda: len(tries) > 3)
    assert held(place) == 1
    assert [record.message for record in caplog.records].count("keys in use could not be looked at") == 1
    monkeypatch.setattr(store, "find_several", found)
    assert asked.last()["error"]["code"] == "key_revoked"
