"""ChatKit's protocol over the wire: real workers, a real upstream, the vendor's own types as the judge."""

import functools
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from chatkit.types import Page, Thread, ThreadItem, ThreadStreamEvent
from pydantic import TypeAdapter

from tests.live.conftest import StartService
from tests.live.service import PATIENCE_SECONDS, Answer, EventReader, Service, Upstream, wait_until
from tests.live.upstream import LEAK, contents

Event = dict[str, Any]
AHEAD = {"CHATKIT_AHEAD": "true", "LOG_LEVEL": "INFO"}
COOKIE = {"Cookie": "visitor=0123456789abcdef0123456789abcdef"}

event_type: TypeAdapter[Any] = TypeAdapter(ThreadStreamEvent)
thread_type = TypeAdapter(Thread)
items_type: TypeAdapter[Any] = TypeAdapter(Page[ThreadItem])


def saying(text: str) -> dict[str, Any]:
    content = [{"type": "input_text", "text": text}]
    return {"content": content, "attachments": [], "inference_options": {}}


def scripted(token: str, **script: Any) -> str:
    return f"say it <<{json.dumps({'token': token, **script})}>>"


class Client:
    """What the vendor's page does, as far as it reaches the server."""

    def __init__(self, service: Service, query: str = "") -> None:
        self.service = service
        self.path = f"/chatkit{query}"

    def ask(self, type_: str, **params: Any) -> Any:
        answer = self.answer(type_, **params)
        assert answer.status == 200, answer
        return answer.json()

    def answer(self, type_: str, **params: Any) -> Answer:
        return self.service.request("POST", self.path, {"type": type_, "params": params}, COOKIE)

    def stream(self, type_: str, **params: Any) -> EventReader:
        reader = EventReader(self.service.port)
        return reader.open(self.path, COOKIE, "POST", {"type": type_, "params": params})

    def events(self, type_: str, **params: Any) -> list[Event]:
        """Return the events of an answer, to its end, each checked by the vendor's types."""
        with self.stream(type_, **params) as reader:
            reader.read_all()
        assert reader.status == 200, reader.raw
        assert reader.whole, "the answer has no end"
        return [checked(event.json()) for event in reader.events]

    def thread(self, thread_id: str) -> Event:
        found = self.ask("threads.get_by_id", thread_id=thread_id)
        thread_type.validate_python(found)
        return found

    def items(self, thread_id: str) -> list[Event]:
        found = self.ask("items.list", thread_id=thread_id, order="asc", limit=100)
        items_type.validate_python(found)
        return found["data"]

    def texts(self, thread_id: str) -> list[str]:
        """Return what was said in a thread, oldest first."""
        return [text_of(item) for item in self.items(thread_id) if item["type"].endswith("_message")]


def checked(event: Event) -> Event:
    event_type.validate_python(event)
    return event


def text_of(item: Event) -> str:
    return "".join(part["text"] for part in item["content"])


def deltas(events: list[Event]) -> str:
    return "".join(event["update"].get("delta", "") for event in events if "update" in event)


def until_text(reader: EventReader, chars: int = 1) -> list[Event]:
    """Read until so much of an answer has come; return the events."""
    seen: list[Event] = []
    for event in reader:
        seen.append(checked(event.json()))
        if len(deltas(seen)) >= chars:
            return seen
    raise AssertionError(f"the answer ended before {chars} characters: {seen}")


@pytest.fixture(scope="module")
def chatkit_service(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("chatkit")
    service = Service(directory, upstream.base_url, environment={**AHEAD, "HEARTBEAT_SECONDS": "1"})
    yield service
    service.stop()


@pytest.fixture
def client(chatkit_service: Service) -> Client:
    return Client(chatkit_service)


def begun(client: Client, text: str) -> str:
    """Begin a thread with a message, hear the answer, and return the thread's id."""
    return client.events("threads.create", input=saying(text))[0]["thread"]["id"]


def test_a_conversation_of_two_turns_is_told_kept_and_known_to_the_model(
    client: Client, upstream: Upstream
) -> None:
    first = client.events("threads.create", input=saying(scripted("ck-1", tokens=5)))
    thread_id = first[0]["thread"]["id"]
    assert [event["type"] for event in first[:3]] == ["thread.created", "thread.item.done", "stream_options"]
    assert deltas(first) == "".join(contents({"tokens": 5}))
    said = first[-1]
    assert said["type"] == "thread.item.done"
    assert text_of(said["item"]) == deltas(first)
    titles = [event["thread"]["title"] for event in first if event["type"] == "thread.updated"]
    assert titles[0].startswith("say it")

    second = client.events(
        "threads.add_user_message", thread_id=thread_id, input=saying(scripted("ck-2", tokens=3))
    )
    assert deltas(second) == "".join(contents({"tokens": 3}))
    (asked,) = upstream.log("ck-2")
    messages = asked["body"]["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert messages[1]["content"] == deltas(first).strip()

    items = client.thread(thread_id)["items"]["data"]
    assert [item["type"] for item in items] == ["user_message", "assistant_message"] * 2
    assert items[1] == said["item"]
    ids = {event["item"]["id"] for event in second if event["type"] == "thread.item.done"}
    assert {item["id"] for item in items[2:]} == ids
    assert "Received request op" not in client.service.log_text(), "the library writes its own log"


def test_threads_are_listed_renamed_and_deleted(client: Client) -> None:
    older, newer = begun(client, "the first of two"), begun(client, "the second of two")
    listed = client.ask("threads.list", limit=1)
    assert [thread["id"] for thread in listed["data"]] == [newer]
    assert listed["has_more"]
    more = client.ask("threads.list", limit=1, after=listed["after"])
    assert [thread["id"] for thread in more["data"]] == [older]

    assert client.ask("threads.update", thread_id=older, title="Renamed")["title"] == "Renamed"
    assert client.thread(older)["title"] == "Renamed"
    client.events("threads.add_user_message", thread_id=older, input=saying("more"))
    assert client.thread(older)["title"] == "Renamed"
    assert client.ask("threads.list", limit=1)["data"][0]["id"] == older, "the last used is not the first"

    assert client.ask("threads.delete", thread_id=older) == {}
    assert client.answer("threads.get_by_id", thread_id=older).status == 404
    assert older not in [thread["id"] for thread in client.ask("threads.list")["data"]]


def test_the_stop_button_ends_the_run_and_keeps_what_was_said(client: Client, upstream: Upstream) -> None:
    script = {"tokens": 400, "pace_ms": 20}
    reader = client.stream("threads.create", input=saying(scripted("ck-stop", **script)))
    seen = until_text(reader, 20)
    assert {"type": "stream_options", "stream_options": {"allow_cancel": True}} in seen
    thread_id = seen[0]["thread"]["id"]
    reader.close()

    upstream.wait_for_close("ck-stop")
    partial = wait_until(
        lambda: client.texts(thread_id)[1:], PATIENCE_SECONDS, "the thread holds the partial answer"
    )[0]
    whole = "".join(contents(script))
    assert partial.startswith(deltas(seen))
    assert whole.startswith(partial)
    assert partial != whole

    wait_until(
        lambda: (
            client.answer("threads.add_user_message", thread_id=thread_id, input=saying("x")).status == 200
        ),
        PATIENCE_SECONDS,
        "the thread takes a next message",
    )
    client.events(
        "threads.add_user_message", thread_id=thread_id, input=saying(scripted("ck-after", tokens=2))
    )
    messages = upstream.log("ck-after")[0]["body"]["messages"]
    assert messages[1] == {"role": "assistant", "content": partial.strip()}
    assert "The user cancelled the stream" in messages[2]["content"]
    assert all("cancelled the stream" not in text for text in client.texts(thread_id))


def test_a_client_that_leaves_before_the_first_word_ends_the_run(client: Client, upstream: Upstream) -> None:
    reader = client.stream("threads.create", input=saying(scripted("ck-hang", play="hang")))
    upstream.wait_for_request("ck-hang")
    reader.close()
    upstream.wait_for_close("ck-hang")


def test_a_silent_answer_is_kept_alive_by_comments(client: Client, upstream: Upstream) -> None:
    reader = client.stream("threads.create", input=saying(scripted("ck-slow", first_ms=2500, tokens=2)))
    with reader:
        reader.read_all()
    assert reader.comments
    assert reader.events[-1].json()["type"] == "thread.item.done"


def test_an_answer_nobody_waits_for_goes_on_where_the_page_wants_that(
    chatkit_service: Service, upstream: Upstream
) -> None:
    client = Client(chatkit_service, "?on_disconnect=continue")
    script = {"tokens": 60, "pace_ms": 10, "gate": "ck-on"}
    upstream.let("ck-on", 30)
    reader = client.stream("threads.create", input=saying(scripted("ck-on", **script)))
    seen = until_text(reader, 20)
    assert {"type": "stream_options", "stream_options": {"allow_cancel": False}} in seen
    thread_id = seen[0]["thread"]["id"]
    reader.close()

    whole = "".join(contents(script))
    during = client.texts(thread_id)[1]
    assert whole.startswith(during)
    assert during != whole, "the answer was over before anybody looked"
    busy = client.answer("threads.add_user_message", thread_id=thread_id, input=saying("x"))
    assert (busy.status, busy.json()["error"]["code"]) == (409, "thread_busy")
    upstream.let("ck-on")
    wait_until(
        lambda: client.texts(thread_id)[1] == whole, PATIENCE_SECONDS, "the whole answer is in the thread"
    )
    assert upstream.log("ck-on")[0]["finished"]


def test_a_retry_replaces_the_answer_and_all_that_came_after(client: Client, upstream: Upstream) -> None:
    thread_id = begun(client, scripted("ck-again", tokens=4))
    client.events("threads.add_user_message", thread_id=thread_id, input=saying("and then?"))
    asked, before, *_ = client.items(thread_id)
    client.events("threads.retry_after_item", thread_id=thread_id, item_id=asked["id"])
    items = client.items(thread_id)
    assert [item["type"] for item in items] == ["user_message", "assistant_message"]
    assert items[1]["id"] != before["id"]
    requests = upstream.log("ck-again")
    assert len(requests) == 2
    assert requests[0]["body"]["messages"] == requests[1]["body"]["messages"]


def test_a_failure_is_told_in_our_words_and_can_be_tried_again(client: Client, upstream: Upstream) -> None:
    script = {"play": "status", "status": 500, "attempts_fail": 3}
    reader = client.stream("threads.create", input=saying(scripted("ck-fail", **script)))
    with reader:
        body = reader.read_all()
    last = checked(reader.events[-1].json())
    assert last == {
        "type": "error",
        "code": "custom",
        "message": "The model's server failed.",
        "allow_retry": True,
    }
    assert LEAK.encode() not in body
    thread_id = reader.events[0].json()["thread"]["id"]
    (asked,) = client.items(thread_id)
    client.events("threads.retry_after_item", thread_id=thread_id, item_id=asked["id"])
    assert client.texts(thread_id)[1] == "".join(contents({}))


def test_an_answer_that_breaks_off_keeps_its_text_and_says_so(client: Client) -> None:
    script = scripted("ck-cut", play="cut", after=3, tokens=9)
    events = client.events("threads.create", input=saying(script))
    assert [event["type"] for event in events[-2:]] == ["thread.item.done", "error"]
    assert client.texts(events[0]["thread"]["id"])[1] == "".join(contents({"tokens": 3}))


def test_a_killed_worker_leaves_the_partial_answer_and_a_retry_completes_it(
    start_service: StartService, upstream: Upstream
) -> None:
    service = start_service(environment=AHEAD)
    client = Client(service)
    script = {"tokens": 300, "pace_ms": 20}
    reader = client.stream("threads.create", input=saying(scripted("ck-kill", **script, attempts_fail=1)))
    seen = until_text(reader, 20)
    thread_id = seen[0]["thread"]["id"]
    service.kill_worker()
    reader.close()
    wait_until(service.is_healthy, 30, "a new worker answers")
    asked, said = wait_until(
        lambda: found if len(found := client.items(thread_id)) == 2 else None,
        PATIENCE_SECONDS,
        "the thread is there",
    )
    assert text_of(said).startswith(deltas(seen))
    assert "".join(contents(script)).startswith(text_of(said))

    def retried() -> list[Event] | None:
        answer = client.answer("threads.retry_after_item", thread_id=thread_id, item_id=asked["id"])
        return None if answer.status == 409 else client.items(thread_id)

    items = wait_until(retried, 30, "the run is known to be interrupted, and is tried again")
    assert text_of(items[1]) == "".join(contents(script))


def test_two_workers_show_the_same_thread(start_service: StartService) -> None:
    service = start_service(workers=2, environment=AHEAD)
    client = Client(service)
    thread_id = begun(client, "one")
    for turn in range(6):
        client.events("threads.add_user_message", thread_id=thread_id, input=saying(f"turn {turn}"))
    assert len({tuple(client.texts(thread_id)) for _ in range(10)}) == 1
    assert len(client.texts(thread_id)) == 14


def test_a_thread_outlives_the_log_of_its_runs(start_service: StartService) -> None:
    service = start_service(environment={**AHEAD, "RETENTION_SECONDS": "1"})
    client = Client(service)
    thread_id = begun(client, "keep this")
    said = client.texts(thread_id)
    stream_id = wait_until(lambda: _stream_of(service), PATIENCE_SECONDS, "the log says which stream it was")
    wait_until(
        lambda: service.request("GET", f"/streams/{stream_id}").status == 410,
        PATIENCE_SECONDS,
        "the stream has expired",
    )
    assert client.texts(thread_id) == said


def test_an_answer_nobody_has_looked_at_is_kept_before_the_log_forgets_it(
    start_service: StartService,
) -> None:
    service = start_service(environment={**AHEAD, "RETENTION_SECONDS": "1"})
    client = Client(service, "?on_disconnect=continue")
    script = {"tokens": 20, "pace_ms": 40}
    reader = client.stream("threads.create", input=saying(scripted("ck-unseen", **script)))
    thread_id = until_text(reader)[0]["thread"]["id"]
    reader.close()
    stream_id = wait_until(lambda: _stream_of(service), PATIENCE_SECONDS, "the log says which stream it was")
    wait_until(
        lambda: service.request("GET", f"/streams/{stream_id}?wait=1").status == 410,
        20,
        "the stream has expired",
    )
    assert client.texts(thread_id)[1] == "".join(contents(script))


def test_the_first_request_imports_the_library_and_other_streams_go_on(start_service: StartService) -> None:
    service = start_service()
    stream_id = service.create(scripted("ck-first", tokens=300, pace_ms=20))
    begun(Client(service), "hello")
    assert service.snapshot(stream_id)["text"], "the other stream stood still"
    wait_until(lambda: service.snapshot(stream_id)["state"] == "completed", 30, "the other stream ends")


def _stream_of(service: Service) -> str:
    started = [line for line in service.log_text().splitlines() if "stream started" in line]
    return next(
        (word.strip('",') for line in started for word in line.replace("=", " ").split() if "st_" in word), ""
    )


# Hosted sessions


class Sessions:
    """OpenAI's sessions API, as far as a client sees it."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.answer: tuple[int, Any] | None = None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, self))
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, sessions: Sessions, *arguments: Any) -> None:
        self._sessions = sessions
        super().__init__(*arguments)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        seen = self._sessions.requests
        seen.append({"path": self.path, "beta": self.headers["OpenAI-Beta"], "body": body})
        number = len(seen)
        session = {
            "id": f"cksess_{number}",
            "object": "chatkit.session",
            "client_secret": f"ek_{number}",
            "expires_at": 1_900_000_000,
            "user": body["user"],
        }
        status, answer = self._sessions.answer or (200, session)
        payload = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def sessions() -> Iterator[Sessions]:
    sessions = Sessions()
    yield sessions
    sessions.stop()


def test_a_hosted_session_is_made_and_renewed_for_the_same_visitor(
    start_service: StartService, sessions: Sessions
) -> None:
    service = start_service(sessions.base_url, environment={"CHATKIT_WORKFLOW_ID": "wf_test"})
    answer = service.request("POST", "/chatkit/session", headers=COOKIE)
    assert answer.status == 200, answer
    first = answer.json()
    assert (first["client_secret"], first["expires_at"]) == ("ek_1", 1_900_000_000)
    assert "thread_id" not in first
    body = {"client_secret": "ek_1", "thread_id": "cthr_7"}
    second = service.request("POST", "/chatkit/refresh", body, COOKIE).json()
    assert (second["client_secret"], second["thread_id"]) == ("ek_2", "cthr_7")

    asked, again = sessions.requests
    assert asked["path"] == "/v1/chatkit/sessions"
    assert asked["beta"] == "chatkit_beta=v1"
    assert asked["body"]["workflow"] == {"id": "wf_test"}
    assert asked["body"]["user"] == again["body"]["user"] == first["user"]
    assert "0123456789abcdef" not in first["user"], "the visitor's cookie is told to somebody else"
    named = service.request("POST", "/chatkit/session", {"user": "ana"}).json()
    assert (named["user"], sessions.requests[-1]["body"]["user"]) == ("ana", "ana")


@pytest.mark.parametrize(
    ("answer", "status", "type_"),
    [
        ((401, {"error": {"message": f"bad key {LEAK}"}}), 502, "upstream_auth"),
        ((404, {"error": {"message": LEAK}}), 404, "upstream_rejected"),
        ((200, {"id": "x"}), 502, "upstream_bad_response"),
        ((200, {"id": "x", "client_secret": "", "expires_at": 1}), 502, "upstream_bad_response"),
    ],
)
def test_a_session_that_is_refused_is_a_typed_error(
    start_service: StartService, sessions: Sessions, answer: Any, status: int, type_: str
) -> None:
    sessions.answer = answer
    service = start_service(sessions.base_url, environment={"CHATKIT_WORKFLOW_ID": "wf_test"})
    refused = service.request("POST", "/chatkit/session", {})
    assert (refused.status, refused.json()["error"]["type"]) == (status, type_)
    assert LEAK.encode() not in refused.body
