"""Every route by every principal: who is let in, and what does not exist for whom.

A route that is not in `ROUTES` fails the first test; so does one that
`streaming/web/_access.py` does not name.
"""

import json
import re
import secrets
import statistics
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.live.keyed import DEMO, KEYS, bearer, make_keys, routes, send, url_of
from tests.live.service import REPOSITORY, Answer, Service

JSON = dict[str, Any]
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}
OURS = {"Sec-Fetch-Site": "same-origin"}
MESSAGES = [{"role": "user", "content": "hi"}]
SAYING = {"content": [{"type": "input_text", "text": "hi"}], "attachments": [], "inference_options": {}}


class Route(NamedTuple):
    endpoint: str
    method: str
    path: str
    """``{stream}``, ``{thread}``, ``{response}`` and ``{chatkit}`` stand for what belongs to the owner."""
    owner: int
    """The status its owner gets, who has the scope ``run``."""
    other: int = 0
    """What another one gets, also for an id that never was; 0: as the owner, for things of its own."""
    body: JSON | None = None
    form: dict[str, str] | None = None
    headers: dict[str, str] = {}  # noqa: RUF012

    @property
    def name(self) -> str:
        return f"{self.endpoint} {self.method} {self.path}"


ROUTES = [
    Route("static", "GET", "/static/style.css", 200),
    Route("assets.serve", "GET", "/assets/none/style.css", 404),
    Route("health.alive", "GET", "/healthz", 200),
    Route("health.ready", "GET", "/readyz", 200),
    Route("openapi.show", "GET", "/openapi.json", 200),
    Route("openapi.docs", "GET", "/docs", 200),
    Route("sign_in.form", "GET", "/sign-in", 200),
    # Too long for a key, and refused for that, whoever asks.
    Route("sign_in.sign_in", "POST", "/sign-in", 413, headers=OURS, form={"key": "x" * 9000}),
    Route("sign_in.sign_out", "POST", "/sign-out", 204, headers=OURS),
    Route("metrics.show", "GET", "/metrics", 403),
    Route("usage.show", "GET", "/usage", 200),
    Route("doctor.page", "GET", "/doctor", 200),
    Route("doctor.ticks", "GET", "/doctor/ticks?count=1&every_ms=1", 200),
    Route("doctor.of_service", "GET", "/doctor/service", 403),
    Route("doctor.judge", "POST", "/doctor/findings", 200, body={"url": "https://sluice.example.com"}),
    Route("page.show", "GET", "/", 200),
    Route("page.show", "GET", "/?stream={stream}", 200, 404),
    Route("page.show", "GET", "/?thread={thread}", 200, 404),
    Route("page.ask", "POST", "/", 303, form={"prompt": "hi"}),
    Route("page.ask", "POST", "/", 303, 404, form={"thread": "{thread}", "replaces": "{turn}"}),
    Route("page.stop", "POST", "/stop", 303, 404, form={"stream": "{stream}"}),
    Route("page.rename", "POST", "/rename", 303, 404, form={"thread": "{thread}", "title": "new"}),
    Route("page.delete", "POST", "/delete", 303, 404, form={"thread": "{thread}"}),
    Route("stream.ask", "GET", "/stream?prompt=hi", 200),
    Route("streams.start", "POST", "/streams", 201, body={"prompt": "hi"}),
    Route("streams.start", "POST", "/streams", 201, 404, body={"prompt": "x", "continues": "{stream}"}),
    Route("streams.start", "POST", "/streams", 201, 404, body={"replaces": "{turn}", "thread": "{thread}"}),
    Route(
        "streams.start",
        "POST",
        "/streams",
        201,
        404,
        body={"prompt": "x", "follows": "{turn}", "thread": "{thread}"},
    ),
    Route("streams.follow", "GET", "/streams/{stream}", 200, 404),
    Route("streams.follow", "GET", "/streams/{stream}?wait=1&after=1.1", 200, 404),
    Route("streams.follow", "GET", "/streams/{stream}?format=native", 200, 404),
    Route("streams.cancel", "POST", "/streams/{stream}/cancel", 200, 404),
    Route("streams.erase", "DELETE", "/streams/{stream}", 204, 404),
    Route("feed.feed", "GET", "/streams?follow={stream}", 200, 200),
    Route("threads.listed", "GET", "/threads", 200),
    Route("threads.make", "POST", "/threads", 201, body={}),
    Route("threads.make", "POST", "/threads", 201, body={"id": "{thread}"}),
    Route("threads.show", "GET", "/threads/{thread}", 200, 404),
    Route("threads.change", "PATCH", "/threads/{thread}", 200, 404, body={"title": "new"}),
    # It is gone, as was asked; whether it was there is not told.
    Route("threads.delete", "DELETE", "/threads/{thread}", 204, 204),
    Route("ws.talk", "GET", "/ws", 101, headers=UPGRADE),
    Route("ws.explain", "GET", "/ws", 426),
    Route(
        "v1_chat.complete", "POST", "/v1/chat/completions", 200, body={"model": "demo", "messages": MESSAGES}
    ),
    Route("v1_embeddings.embed", "POST", "/v1/embeddings", 200, body={"model": "demo", "input": "hi"}),
    Route("v1_models.list_all", "GET", "/v1/models", 200),
    Route("v1_models.show", "GET", "/v1/models/demo", 200),
    Route("v1_responses.respond", "POST", "/v1/responses", 200, body={"model": "demo", "input": "hi"}),
    Route(
        "v1_responses.respond",
        "POST",
        "/v1/responses",
        200,
        400,
        body={"model": "demo", "input": "hi", "previous_response_id": "{response}"},
    ),
    Route("v1_responses.show", "GET", "/v1/responses/{response}", 200, 404),
    Route("v1_responses.show", "GET", "/v1/responses/{response}?stream=true&starting_after=2", 200, 404),
    Route("v1_responses.list_input", "GET", "/v1/responses/{response}/input_items", 200, 404),
    Route("v1_responses.cancel", "POST", "/v1/responses/{response}/cancel", 200, 404),
    Route("v1_responses.erase", "DELETE", "/v1/responses/{response}", 200, 404),
    Route("runnables.list_all", "GET", "/runnables", 200),
    Route("runnables.show", "GET", "/runnables/explain", 200),
    Route("runnables.show_schema", "GET", "/runnables/explain/input_schema", 200),
    Route("runnables.invoke", "POST", "/runnables/explain/invoke", 200, body={"input": {"topic": "hi"}}),
    Route("runnables.batch", "POST", "/runnables/explain/batch", 200, body={"inputs": [{"topic": "hi"}]}),
    Route("runnables.stream", "POST", "/runnables/explain/stream", 200, body={"input": {"topic": "hi"}}),
    Route(
        "runnables.stream_events",
        "POST",
        "/runnables/explain/stream_events",
        200,
        body={"input": {"topic": "hi"}},
    ),
    Route(
        "chatkit.answer",
        "POST",
        "/chatkit",
        200,
        404,
        body={"type": "threads.get_by_id", "params": {"thread_id": "{chatkit}"}},
    ),
    Route(
        "chatkit.answer",
        "POST",
        "/chatkit",
        200,
        404,
        body={"type": "items.list", "params": {"thread_id": "{chatkit}"}},
    ),
    Route(
        "chatkit.answer",
        "POST",
        "/chatkit",
        200,
        404,
        body={"type": "threads.add_user_message", "params": {"thread_id": "{chatkit}", "input": SAYING}},
    ),
    Route(
        "chatkit.answer",
        "POST",
        "/chatkit",
        200,
        404,
        body={"type": "threads.delete", "params": {"thread_id": "{chatkit}"}},
    ),
    Route("chatkit.open_session", "POST", "/chatkit/session", 501, body={}),
    Route("chatkit.renew_session", "POST", "/chatkit/refresh", 501, body={}),
]
PRIVATE_WORDS = "the owner's own words"


def _is_here(endpoint: str) -> bool:
    """Say whether this service was built with the module of an endpoint."""
    return endpoint == "static" or (REPOSITORY / f"streaming/web/{endpoint.partition('.')[0]}.py").exists()


ROUTES = [route for route in ROUTES if _is_here(route.endpoint)]
with_routes = pytest.mark.parametrize("route", ROUTES, ids=[route.name for route in ROUTES])
OPEN_TO_ALL = ("public", "optional")


class Keyed(NamedTuple):
    service: Service
    keys: dict[str, str]
    needs: dict[str, str]
    methods: dict[str, list[str]]
    store: str
    """The id of the store, which is in every id of a stream."""

    def send(self, who: str, route: Route, named: dict[str, str]) -> Answer:
        """Send a route's request as one of the principals, about the things ``named``."""
        body = json.loads(_fill(json.dumps(route.body), named)) if route.body is not None else None
        form = {key: _fill(value, named) for key, value in route.form.items()} if route.form else None
        headers = {**bearer(self.keys.get(who, who)), **route.headers}
        return send(self.service, route.method, _fill(route.path, named), headers, body, form)

    def belongings(self) -> dict[str, str]:
        """Make something of each kind for the owner, and return how to name it."""
        head = bearer(self.keys["owner"])
        thread_id = self.service.request("POST", "/threads", {}, head).json()["id"]
        made = {"thread": thread_id}
        for kind, body in (("stream", {}), ("turn", {"thread": thread_id})):
            answer = self.service.request("POST", "/streams", {"prompt": PRIVATE_WORDS, **body}, head)
            made[kind] = answer.json()["stream_id"]
        for kind in ("stream", "turn"):
            self.service.request("GET", f"/streams/{made[kind]}?format=native", None, head)  # to its end
        asked = {"model": "demo", "input": PRIVATE_WORDS}
        made["response"] = self.service.request("POST", "/v1/responses", asked, head).json()["id"]
        saying = {**SAYING, "content": [{"type": "input_text", "text": PRIVATE_WORDS}]}
        begun = {"type": "threads.create", "params": {"input": saying}}
        events = self.service.request("POST", "/chatkit", begun, head).body
        found = re.search(rb"thr_[0-9a-f]{32}", events)
        assert found, events
        return {**made, "chatkit": found[0].decode()}

    def unknown(self) -> dict[str, str]:
        """Names of the same look that nothing has."""
        return {
            "thread": f"th_{secrets.token_hex(16)}",
            "chatkit": f"thr_{secrets.token_hex(16)}",
            "stream": f"st_{self.store}" + "a" * 26,
            "turn": f"st_{self.store}" + "a" * 26,
            "response": f"resp_{self.store}" + "a" * 26,
        }


def _fill(text: str, named: dict[str, str]) -> str:
    for kind, name in named.items():
        text = text.replace(f"{{{kind}}}", name)
    return text


def _told(answer: Answer, named: dict[str, str]) -> str:
    """Return a body without what differs from request to request, and the names that were asked for."""
    text = answer.body.decode()
    for name in sorted(set(named.values()), key=len, reverse=True):
        text = text.replace(name, "NAME")
    text = re.sub(r"req_[0-9a-f]{24}", "REQUEST", text)
    # Of the page: its nonce, the keys of its forms, and its own form tokens.
    return re.sub(r"[0-9a-f]{32}|(nonce=|nonce-)\"?[\w-]{22}|name=\"csrf\" value=\"[^\"]*\"", "RANDOM", text)


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    directory = tmp_path_factory.mktemp("matrix")
    keys, found = make_keys(url_of(directory)), routes()
    runnables = {"RUNNABLES": "explain=examples.chain:chain"}
    service = Service(directory, "", environment={**DEMO, **KEYS, **runnables})
    made = service.request("POST", "/streams", {"prompt": "hi"}, bearer(keys["owner"])).json()["stream_id"]
    yield Keyed(service, keys, found["needs"], found["methods"], made[3:11])
    service.stop()


def test_every_route_is_in_this_table_and_in_that_of_the_service(keyed: Keyed) -> None:
    there = {(endpoint, method) for endpoint, methods in keyed.methods.items() for method in methods}
    assert {(route.endpoint, route.method) for route in ROUTES} == there
    assert set(filter(_is_here, keyed.needs)) == set(keyed.methods)


@with_routes
@pytest.mark.parametrize("who", ["", "sk-garbage", "expired", "revoked", "sk-sluice-00000000-" + "a" * 43])
def test_nobody_is_let_in_without_a_key_that_is_valid(keyed: Keyed, route: Route, who: str) -> None:
    answer = keyed.send(who, route, keyed.unknown())

    if keyed.needs[route.endpoint] in OPEN_TO_ALL:
        assert answer.status == route.owner, answer
        return
    assert answer.status == 401, answer
    assert answer.headers["www-authenticate"].startswith("Bearer")
    if answer.headers["content-type"] == "application/json":
        error = answer.json()["error"]
        codes = {"": "no_key", "expired": "key_expired", "revoked": "key_revoked"}
        of_openai = route.path.startswith("/v1/")
        assert error["code"] == ("invalid_api_key" if of_openai else codes.get(who, "invalid_key"))
        assert error["type"] == ("invalid_request_error" if of_openai else "not_authenticated")
    assert not who or keyed.keys.get(who, who) not in answer.body.decode()


@with_routes
@pytest.mark.parametrize("who", ["metrics", "admin", "reader"])
def test_a_key_without_the_scope_is_refused(keyed: Keyed, route: Route, who: str) -> None:
    need = keyed.needs[route.endpoint]
    covers = {"metrics": ("metrics",), "admin": ("metrics", "admin", "read"), "reader": ("read",)}[who]
    answer = keyed.send(who, route, keyed.unknown())

    if need in OPEN_TO_ALL:
        assert answer.status in (200, route.owner), answer
    elif need in covers:
        assert answer.status not in (401, 403), answer
    else:
        assert answer.status == 403, answer
        if answer.headers["content-type"] == "application/json":
            assert answer.json()["error"]["code"] == "forbidden"


@with_routes
def test_what_is_anothers_is_answered_as_what_never_was(keyed: Keyed, route: Route) -> None:
    mine, nothing = keyed.belongings(), keyed.unknown()

    foreign = keyed.send("other", route, mine)
    unknown = keyed.send("other", route, nothing)

    assert foreign.status == unknown.status == (route.other or route.owner), (foreign, unknown)
    assert PRIVATE_WORDS not in foreign.body.decode()
    if route.other:
        assert _told(foreign, mine) == _told(unknown, nothing)
        # And nothing happened to it.
        head = bearer(keyed.keys["owner"])
        assert keyed.service.request("GET", f"/streams/{mine['stream']}", None, head).json()["text"]
        thread = keyed.service.request("GET", f"/threads/{mine['thread']}", None, head)
        assert thread.json()["title"] == PRIVATE_WORDS
        assert len(thread.json()["turns"]) == 1


@with_routes
def test_its_owner_is_answered(keyed: Keyed, route: Route) -> None:
    answer = keyed.send("owner", route, keyed.belongings())
    assert answer.status == route.owner, answer


@pytest.mark.parametrize("path", ["/streams/{stream}", "/threads/{thread}", "/v1/responses/{response}"])
def test_a_key_that_shares_reads_what_its_owner_has(keyed: Keyed, path: str) -> None:
    mine = keyed.belongings()
    answer = keyed.service.request("GET", _fill(path, mine), None, bearer(keyed.keys["reader"]))
    assert answer.status == 200
    assert PRIVATE_WORDS in answer.body.decode() or "text" in answer.json()


def test_lists_show_nobody_elses(keyed: Keyed) -> None:
    mine = keyed.belongings()
    for who, sees in (("owner", True), ("other", False), ("reader", True)):
        head = bearer(keyed.keys[who])
        listed = keyed.service.request("GET", "/threads", None, head).body.decode()
        page = keyed.service.request("GET", "/", None, head).body.decode()
        asked = {"type": "threads.list", "params": {"limit": 50}}
        assert (mine["thread"] in listed) is sees
        assert (mine["thread"] in page) is sees
        if who != "reader":
            chatkit = keyed.service.request("POST", "/chatkit", asked, head).body.decode()
            assert (mine["chatkit"] in chatkit) is sees


def test_an_idempotency_key_is_each_principals_own(keyed: Keyed) -> None:
    named = {"Idempotency-Key": "the-same"}
    first, again, other = (
        keyed.service.request("POST", "/streams", {"prompt": prompt}, bearer(keyed.keys[who]) | named)
        for who, prompt in (("owner", "mine"), ("owner", "mine"), ("other", "another question"))
    )
    assert (first.status, again.status, other.status) == (201, 200, 201)
    assert first.json()["stream_id"] == again.json()["stream_id"] != other.json()["stream_id"]


@pytest.mark.parametrize("path", ["/streams/{stream}", "/threads/{thread}", "/v1/responses/{response}"])
def test_what_is_anothers_is_refused_as_fast_as_what_never_was(keyed: Keyed, path: str) -> None:
    mine, nothing = keyed.belongings(), keyed.unknown()
    head = bearer(keyed.keys["other"])
    seconds: dict[str, list[float]] = {"foreign": [], "unknown": []}
    for _ in range(150):  # by turns, so that a busy machine is as busy for both
        for kind, named in (("foreign", mine), ("unknown", nothing)):
            began = time.perf_counter()
            answer = keyed.service.request("GET", _fill(path, named), None, head)
            seconds[kind].append(time.perf_counter() - began)
            assert answer.status == 404
    foreign, unknown = (statistics.median(each) for each in seconds.values())
    assert abs(foreign - unknown) < max(0.001, 0.35 * unknown), (foreign, unknown)


def test_no_key_is_written_to_the_log(keyed: Keyed) -> None:
    keyed.send("expired", ROUTES[12], {})
    log = keyed.service.log_text()
    for key in keyed.keys.values():
        assert key not in log
        assert key.rpartition("-")[2] not in log
