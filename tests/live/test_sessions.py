"""Sessions of the page over the wire: several workers, restarts, WebSocket and ChatKit."""

import http.client
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.live.keyed import DEMO, KEYS, bearer, keys_command, url_of
from tests.live.service import PATIENCE_SECONDS, Answer, Service, request, wait_until
from tests.live.test_chatkit import saying
from tests.live.websocket import Talk

WORKERS = 3
OFTEN = 12
"""Requests of which some come to each worker."""


class Place:
    """A service of several workers, and one key of it."""

    def __init__(self, directory: Path, url: str = "", **environment: str) -> None:
        self.directory = directory
        self.environment: dict[str, str | None] = {**DEMO, **KEYS, **environment}
        if url:
            self.environment["EVENTLOG_URL"] = url
        self.url = url or url_of(directory)
        self.service = self.start()
        self.key = keys_command(self.url, "create", "--name", "Ana").strip()

    def start(self) -> Service:
        return Service(self.directory, "", workers=WORKERS, environment=self.environment)

    def revoke(self) -> None:
        keys_command(self.url, "revoke", self.key.split("-")[2])

    def sign_in(self) -> dict[str, str]:
        """Return the headers that our own page sends from then on."""
        head = {"Origin": self.service.url, "Sec-Fetch-Site": "same-origin"}
        answer = form(self.service, "/sign-in", {"key": self.key}, head)
        assert answer.status == 200, answer
        cookie = answer.headers["set-cookie"].split(";")[0]
        return {**head, "Cookie": cookie, "Accept": "application/json"}

    def statuses(self, head: Mapping[str, str]) -> set[int]:
        """Return how the workers answer."""
        return {self.service.request("GET", "/threads", None, head).status for _ in range(OFTEN)}


def form(service: Service, path: str, fields: dict[str, str], headers: Mapping[str, str]) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
    try:
        kind = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        connection.request("POST", path, urlencode(fields), {**kind, **headers})
        answer = connection.getresponse()
        return Answer(
            answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        )
    finally:
        connection.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("sessions"))
    yield made
    made.service.kill()


def test_every_worker_knows_a_session_that_one_of_them_began(place: Place) -> None:
    assert place.statuses(place.sign_in()) == {200}


def test_a_session_outlives_a_restart(tmp_path: Path) -> None:
    place = Place(tmp_path)
    head = place.sign_in()
    port = place.service.port
    place.service.stop()
    place.service = place.start()
    try:
        # On loopback the cookie's name has the port in it, which is another one now.
        moved = head | {"Cookie": head["Cookie"].replace(f"-{port}=", f"-{place.service.port}=")}
        assert place.statuses(moved) == {200}
    finally:
        place.service.kill()


def test_a_session_that_was_ended_at_one_worker_ends_at_all(place: Place) -> None:
    head = place.sign_in()
    page = place.service.request("GET", "/", None, head | {"Accept": "text/html"}).body.decode()
    token = page.split('name="csrf" value="')[1].split('"')[0]
    assert form(place.service, "/sign-out", {"csrf": token}, head).status == 204
    wait_until(
        lambda: place.statuses(head) == {401}, PATIENCE_SECONDS, "no worker knows the session any more"
    )


def test_a_key_that_is_revoked_ends_its_sessions_at_all_workers(tmp_path: Path) -> None:
    place = Place(tmp_path)
    try:
        head = place.sign_in()
        place.revoke()
        wait_until(
            lambda: place.statuses(head) == {401}, PATIENCE_SECONDS, "no worker knows the session any more"
        )
    finally:
        place.service.kill()


@pytest.mark.parametrize("origin", [None, "https://evil.test", "http://localhost", "null"])
def test_a_websocket_with_the_cookie_is_opened_by_our_page_only(place: Place, origin: str | None) -> None:
    head = {"Cookie": place.sign_in()["Cookie"]}
    with pytest.raises(InvalidStatus) as refused:
        Talk(place.service, additional_headers=head, origin=origin)
    assert refused.value.response.status_code == 403


def test_a_websocket_of_our_page_is_its_keys(place: Place) -> None:
    head = {"Cookie": place.sign_in()["Cookie"]}
    talk = Talk(place.service, additional_headers=head, origin=place.service.url)
    try:
        started = talk.ask("start", prompt="hi")
        talk.to_the_end()
    finally:
        talk.connection.close()
    answer = place.service.request("GET", f"/streams/{started['stream_id']}", None, bearer(place.key))
    assert answer.status == 200
    assert answer.json()["state"] == "completed"


def test_a_websocket_is_closed_once_its_session_has_ended(tmp_path: Path) -> None:
    place = Place(tmp_path)
    try:
        head = {"Cookie": place.sign_in()["Cookie"]}
        talk = Talk(place.service, additional_headers=head, origin=place.service.url)
        place.revoke()
        assert _closed(talk) == 1008
    finally:
        place.service.kill()


def _closed(talk: Talk) -> int:
    with pytest.raises(ConnectionClosed) as closed:
        talk.until(lambda frame: False)
    assert closed.value.rcvd
    return closed.value.rcvd.code


def test_chatkit_with_the_cookie_is_asked_by_our_page_only(place: Place) -> None:
    head = place.sign_in()
    asked: dict[str, Any] = {"type": "threads.create", "params": {"input": saying("hi")}}
    elsewhere = head | {"Origin": "https://evil.test", "Sec-Fetch-Site": "cross-site"}
    assert place.service.request("POST", "/chatkit", asked, elsewhere).status == 403
    silent = {"Cookie": head["Cookie"]}
    assert place.service.request("POST", "/chatkit", asked, silent).status == 403
    assert place.service.request("POST", "/chatkit", asked, head).status == 200
    listed = {"type": "threads.list", "params": {"limit": 5}}
    by_key = place.service.request("POST", "/chatkit", listed, bearer(place.key)).json()
    assert len(by_key["data"]) == 1, "the session is the key's principal"


def test_no_key_and_no_cookie_is_written_to_the_log(place: Place) -> None:
    head = place.sign_in()
    form(place.service, "/sign-in", {"key": place.key + "x"}, {"Sec-Fetch-Site": "same-origin"})
    request(place.service.port, "GET", f"/sign-in?key={place.key}")
    said = place.service.log_text()
    assert place.key.rsplit("-")[-1] not in said
    assert head["Cookie"].split("=")[1] not in said


def test_on_a_redis_server_sessions_are_shared_too(tmp_path: Path) -> None:
    pytest.importorskip("hiredis")
    from tests.contracts.redis_server import RedisServer

    with RedisServer(tmp_path) as server:
        place = Place(tmp_path, server.url)
        try:
            head = place.sign_in()
            assert place.statuses(head) == {200}
            place.revoke()
            wait_until(
                lambda: place.statuses(head) == {401},
                PATIENCE_SECONDS,
                "no worker knows the session any more",
            )
        finally:
            place.service.kill()
