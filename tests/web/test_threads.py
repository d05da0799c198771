"""Conversations over HTTP: turns with their history, their versions, and what is refused."""

import json
from typing import Any

import gevent
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from streaming.eventlogs.memory import MemoryLog
from streaming.events import Done, Reasoning, Token, ToolCall, ToolResult
from streaming.sources import Batches, Prompt
from streaming.turns import MAX_TURNS, Turn, item_of
from tests.doubles import Gate, ScriptedSource, UnsteadyLog, eventually, says
from tests.web.conftest import Compose, Service, nothing_made, refused

ANA = {"Cookie": f"visitor={'a' * 32}"}
BEN = {"Cookie": f"visitor={'b' * 32}"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


class Parrot:
    """A source that says what it was asked, and remembers being asked."""

    def __init__(self) -> None:
        self.prompts: list[Prompt] = []

    def events(self, prompt: Prompt) -> Batches:
        self.prompts.append(prompt)
        asked = prompt.messages[-1]["content"] if prompt.messages else json.dumps(prompt.input)
        yield [Token(f"You said {asked if isinstance(asked, str) else 'something'}.")]
        yield [Done("stop")]

    @property
    def heard(self) -> list[str]:
        """What the last prompt held, by role."""
        return [f"{said['role']}: {said['content']}" for said in self.prompts[-1].messages]


@pytest.fixture
def parrot() -> Parrot:
    return Parrot()


@pytest.fixture
def talk(compose: Compose, parrot: Parrot) -> "Talk":
    return Talk(compose(parrot))


class Talk:
    """One thread of a service."""

    def __init__(self, service: Service, thread: str = "t1") -> None:
        self.service = service
        self.thread = thread

    def ask(self, prompt: str | None = None, **fields: Any) -> str:
        """Ask in the thread, wait for the end, and return the stream's id."""
        body = {"thread": self.thread, **({} if prompt is None else {"prompt": prompt}), **fields}
        response = self.service.client.post("/streams", json=body)
        assert response.status_code == 201, response.text
        stream_id: str = response.json["stream_id"]
        self.service.follow(f"/streams/{stream_id}")
        return stream_id

    def post(self, headers: dict[str, str] | None = None, **fields: Any) -> TestResponse:
        return self.service.client.post("/streams", json={"thread": self.thread, **fields}, headers=headers)

    def show(self, query: str = "") -> dict[str, Any]:
        response = self.service.client.get(f"/threads/{self.thread}{query}")
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json
        return found

    def said(self, query: str = "") -> list[tuple[str, str]]:
        return [(turn["prompt"], turn["answer"]["text"]) for turn in self.show(query)["turns"]]


def without_cookies(service: Service) -> FlaskClient:
    """Return a client that sends the cookies which a test says, and no others."""
    return service.client.application.test_client(use_cookies=False)


# History


def test_a_model_is_given_what_was_said_before(talk: Talk, parrot: Parrot) -> None:
    talk.ask("one")
    talk.ask("two")
    talk.ask("three", instructions="Be brief.")
    assert parrot.heard == [
        "system: Be brief.",
        "user: one",
        "assistant: You said one.",
        "user: two",
        "assistant: You said two.",
        "user: three",
    ]
    assert talk.said() == [(word, f"You said {word}.") for word in ("one", "two", "three")]


def test_images_of_earlier_turns_are_in_the_history(talk: Talk, parrot: Parrot) -> None:
    content = [{"type": "text", "text": "What is this?"}, IMAGE]
    talk.ask(messages=[{"role": "user", "content": content}])
    talk.ask("And now?")
    assert parrot.prompts[-1].messages[0] == {"role": "user", "content": content}
    assert talk.show()["turns"][0]["prompt"] == "What is this?"
    assert talk.show()["turns"][0]["messages"] == [{"role": "user", "content": content}]


def test_a_client_that_sends_all_that_was_said_does_not_say_it_twice(talk: Talk, parrot: Parrot) -> None:
    talk.ask("one")
    before = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "You said one."}]
    talk.ask(messages=[{"role": "system", "content": "S"}, *before, {"role": "user", "content": "two"}])
    assert parrot.heard == ["system: S", "user: one", "assistant: You said one.", "user: two"]


def test_messages_of_the_first_turn_count_as_they_are(talk: Talk, parrot: Parrot) -> None:
    first = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    talk.ask(messages=first)
    talk.ask("d")
    assert parrot.heard == ["user: a", "assistant: b", "user: c", "assistant: You said c.", "user: d"]


def test_a_turn_without_a_word_of_an_answer_is_left_out(compose: Compose) -> None:
    source = ScriptedSource([Reasoning("hm")], [Done("stop")])
    talk = Talk(compose(source))
    talk.ask("one")
    talk.ask("two")
    assert [said["content"] for said in source.prompts[-1].messages] == ["two"]


def test_an_answer_that_broke_off_is_part_of_the_history(compose: Compose) -> None:
    source = ScriptedSource([Token("half an")], RuntimeError("broken"))
    talk = Talk(compose(source))
    talk.ask("one")
    talk.ask("two")
    assert [said["content"] for said in source.prompts[-1].messages] == ["one", "half an", "two"]
    answer = talk.show()["turns"][0]["answer"]
    assert (answer["state"], answer["text"], answer["error"]["partial"]) == ("failed", "half an", True)


def test_the_oldest_turns_are_left_out_where_a_request_has_no_room(compose: Compose, parrot: Parrot) -> None:
    talk = Talk(compose(parrot, settings={"max_prompt_chars": 80}))
    for word in ("one" * 5, "two" * 5, "three" * 5):
        talk.ask(word)
    assert parrot.heard[-1] == "user: " + "three" * 5
    assert parrot.heard[0] == "user: " + "two" * 5
    talk.ask("x" * 79)
    assert parrot.heard == ["user: " + "x" * 79], "the new question is never left out"


def test_no_more_messages_are_sent_than_a_request_may_have(compose: Compose, parrot: Parrot) -> None:
    talk = Talk(compose(parrot, settings={"max_messages": 4}))
    for word in ("one", "two", "three"):
        talk.ask(word)
    assert parrot.heard == ["user: two", "assistant: You said two.", "user: three"]


# Versions


def test_what_replaces_a_turn_stands_in_its_place_and_both_are_kept(talk: Talk, parrot: Parrot) -> None:
    first = talk.ask("one")
    second = talk.ask("two")
    edited = talk.ask("deux", replaces=second)
    assert parrot.heard == ["user: one", "assistant: You said one.", "user: deux"]
    assert [turn["stream_id"] for turn in talk.show()["turns"]] == [first, edited]
    assert talk.show()["turns"][1]["versions"] == [second, edited]
    assert talk.said(f"?turn={second}") == [("one", "You said one."), ("two", "You said two.")]


def test_another_version_is_shown_with_what_followed_it(talk: Talk) -> None:
    first = talk.ask("one")
    talk.ask("two")
    third = talk.ask("three")
    other = talk.ask("uno", replaces=first)
    assert talk.said() == [("uno", "You said uno.")]
    assert [turn["stream_id"] for turn in talk.show(f"?turn={first}")["turns"]][-1] == third
    assert talk.show()["turns"][0]["versions"] == [first, other]


def test_a_turn_is_asked_again_as_it_was(talk: Talk, parrot: Parrot) -> None:
    talk.ask("zero")
    content = [{"type": "text", "text": "What is this?"}, IMAGE]
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": content}]
    turn = talk.ask(messages=messages, params={"temperature": 0.5})
    talk.ask(replaces=turn)
    assert parrot.prompts[-1] == parrot.prompts[-2]
    assert [len(shown["versions"]) for shown in talk.show()["turns"]] == [1, 2]


def test_asking_again_may_change_the_instructions_and_parameters(talk: Talk, parrot: Parrot) -> None:
    turn = talk.ask("one", instructions="A")
    talk.ask(replaces=turn, instructions="B", params={"temperature": 1.0})
    assert parrot.heard == ["system: B", "user: one"]
    assert parrot.prompts[-1].params == {"temperature": 1.0}


def test_a_turn_may_follow_any_other(talk: Talk, parrot: Parrot) -> None:
    first = talk.ask("one")
    talk.ask("two")
    talk.ask("three", follows=first)
    assert parrot.heard == ["user: one", "assistant: You said one.", "user: three"]
    assert len(talk.show()["turns"][1]["versions"]) == 2


# One at a time


def test_a_thread_answers_one_question_at_a_time(compose: Compose) -> None:
    gate = Gate()
    talk = Talk(compose(ScriptedSource([Token("half")], gate, [Token(" whole"), Done("stop")])))
    running = talk.post(prompt="one").json["stream_id"]
    gate.reached.wait(2)
    with nothing_made(talk.service):
        for fields in ({}, {"follows": running}, {"replaces": running}):
            refused(
                talk.post(prompt="two", **fields), 409, "invalid_request", code="thread_busy", param="thread"
            )
    (turn,) = talk.show()["turns"]
    assert (turn["answer"]["state"], turn["answer"]["text"]) == ("running", "half")
    reader = talk.service.follow
    gevent.spawn(gate.open)
    reader(f"/streams/{running}?after={turn['answer']['cursor']}")
    assert talk.post(prompt="two").status_code == 201
    assert talk.said()[0] == ("one", "half whole")


def test_a_question_that_was_stopped_is_in_nobodys_way(compose: Compose) -> None:
    gate = Gate()
    talk = Talk(compose(ScriptedSource([Token("half")], gate)))
    running = talk.post(prompt="one").json["stream_id"]
    gate.reached.wait(2)
    talk.service.client.post(f"/streams/{running}/cancel")
    assert talk.post(prompt="two").status_code == 201
    assert talk.show()["turns"][0]["answer"]["finish_reason"] == "cancelled"


def test_the_same_request_joins_its_turn_instead_of_waiting(compose: Compose) -> None:
    gate = Gate()
    talk = Talk(compose(ScriptedSource(gate, *says("done"))))
    key = {"Idempotency-Key": "k1"}
    first = talk.post(prompt="one", headers=key)
    gate.reached.wait(2)
    again = talk.post(prompt="one", headers=key)
    assert (again.status_code, again.json["stream_id"]) == (200, first.json["stream_id"])
    refused(talk.post(prompt="two", headers=key), 422, "idempotency_mismatch")
    gate.open()
    talk.service.follow(f"/streams/{first.json['stream_id']}")
    assert len(talk.show()["turns"]) == 1


def test_of_questions_at_the_same_moment_one_is_answered(compose: Compose) -> None:
    gate = Gate()
    talk = Talk(compose(ScriptedSource(gate, *says("done"))))
    asking = [gevent.spawn(talk.post, prompt=f"q{number}") for number in range(8)]
    gevent.joinall(asking, timeout=10, raise_error=True)
    assert sorted(each.value.status_code for each in asking) == [201] + [409] * 7
    gate.open()


def test_a_question_sent_twice_at_the_same_moment_is_one_turn(compose: Compose) -> None:
    gate = Gate()
    source = ScriptedSource(gate, *says("done"))
    talk = Talk(compose(source))
    asking = [gevent.spawn(talk.post, {"Idempotency-Key": "k1"}, prompt="one") for _ in range(8)]
    gevent.joinall(asking, timeout=10, raise_error=True)
    assert sorted(each.value.status_code for each in asking) == [200] * 7 + [201]
    assert len({each.value.json["stream_id"] for each in asking}) == 1
    gate.open()
    assert len(talk.show()["turns"]) == 1
    assert source.opened == 1


# Mending


def test_a_turn_whose_stream_was_never_made_says_so_and_is_asked_again(compose: Compose) -> None:
    talk = Talk(compose(ScriptedSource(*says("done"))))
    store = talk.service.streams.threads.store
    talk.service.streams.threads.open("t1", "")
    store.claim(item_of(Turn("st_never", "", "chat", "demo", "one", 1.0), "t1"), "")
    (turn,) = talk.show()["turns"]
    assert (turn["answer"]["state"], turn["answer"]["error"]["type"]) == ("failed", "not_found")
    talk.ask(replaces="st_never")
    assert talk.said() == [("one", "done")]


def test_a_repeated_request_gives_its_stream_the_turn_that_is_missing(compose: Compose) -> None:
    talk = Talk(compose(ScriptedSource(*says("done"))))
    stream_id = talk.ask("one", message_id="m1")
    talk.service.streams.threads.store.remove("t1", stream_id)
    assert talk.show()["turns"] == []
    assert talk.post(prompt="one", message_id="m1").status_code == 200
    assert talk.said() == [("one", "done")]


def test_a_stream_that_cannot_be_made_leaves_no_turn(compose: Compose) -> None:
    log = UnsteadyLog()
    talk = Talk(compose(ScriptedSource(*says("done")), log))
    log.broken.add("create")
    refused(talk.post(prompt="one"), 503, "store_unavailable")
    log.broken.clear()
    assert talk.show()["turns"] == []
    assert talk.post(prompt="two").status_code == 201


# Keeping


def test_an_answer_outlives_its_stream(compose: Compose) -> None:
    log = MemoryLog()
    call, result = ToolCall("c", "f", {"a": 1}), ToolResult("c", "f", 2)
    talk = Talk(compose(ScriptedSource([Reasoning("hm"), call, result], *says("an ", "answer")), log))
    stream_id = talk.ask("one")
    before = talk.show()["turns"]
    log.erase(stream_id)
    assert talk.show()["turns"] == before
    answer = before[0]["answer"]
    assert (answer["text"], answer["reasoning"], answer["state"]) == ("an answer", "hm", "completed")
    assert [event["type"] for event in answer["events"]] == ["reasoning", "tool_call", "tool_result", "token"]


def test_the_sweeper_keeps_answers_before_the_log_forgets_them(compose: Compose) -> None:
    settings = {"retention_seconds": 0.2}
    talk = Talk(compose(ScriptedSource(*says("kept")), settings=settings))
    stream_id = talk.ask("one")
    gone = lambda: talk.service.client.get(f"/streams/{stream_id}").status_code == 410  # noqa: E731
    eventually(gone)
    assert talk.said() == [("one", "kept")]


def test_an_answer_that_the_log_lost_says_so(compose: Compose) -> None:
    log = MemoryLog()
    talk = Talk(compose(ScriptedSource(*says("lost")), log))
    stream_id = talk.ask("one")
    log.erase(stream_id)
    (turn,) = talk.show()["turns"]
    assert (turn["answer"]["error"]["type"], turn["answer"]["text"]) == ("stream_expired", "")
    assert talk.post(prompt="two").status_code == 201


def test_a_thread_is_forgotten_some_time_after_its_last_turn(compose: Compose) -> None:
    talk = Talk(
        compose(
            ScriptedSource(*says("x")), settings={"retention_seconds": 0.2, "thread_retention_seconds": 0.3}
        )
    )
    talk.ask("one")
    eventually(lambda: talk.service.client.get("/threads/t1").status_code == 404)


def test_an_erased_stream_is_forgotten_by_its_thread_too(talk: Talk) -> None:
    stream_id = talk.ask("one")
    assert talk.said() == [("one", "You said one.")]
    assert talk.service.client.delete(f"/streams/{stream_id}").status_code == 204
    (turn,) = talk.show()["turns"]
    assert (turn["prompt"], turn["answer"]["text"]) == ("one", "")
    assert turn["answer"]["error"]["type"] == "stream_expired"


# Threads


def test_a_thread_is_called_by_its_first_question_until_it_is_renamed(service: Service) -> None:
    talk = Talk(service)
    talk.ask("Why is the sky   blue, and the sea too, on most of the days that I have seen?")
    assert talk.show()["title"] == "Why is the sky blue, and the sea too, on most of the days…"
    talk.ask("And now?")
    response = service.client.patch("/threads/t1", json={"title": "  The  sky "})
    assert (response.status_code, response.json["title"]) == (200, "The sky")
    talk.ask("And then?")
    assert talk.show()["title"] == "The sky"


def test_threads_are_listed_to_their_owner_the_newest_first(service: Service) -> None:
    client = without_cookies(service)
    for number in range(3):
        client.post("/streams", json={"thread": f"a{number}", "prompt": f"q{number}"}, headers=ANA)
    client.post("/threads", json={"id": "b", "title": "Ben's"}, headers=BEN)
    client.post("/threads", json={"id": "nobodys"})

    page = client.get("/threads?limit=2", headers=ANA).json
    assert [thread["id"] for thread in page["threads"]] == ["a2", "a1"]
    assert page["more"]
    rest = client.get("/threads?limit=2&after=a1", headers=ANA).json
    assert [thread["id"] for thread in rest["threads"]] == ["a0"]
    assert not rest["more"]
    assert [each["title"] for each in client.get("/threads", headers=BEN).json["threads"]] == ["Ben's"]
    assert client.get("/threads").json["threads"] == []
    assert client.get("/threads", headers={"Cookie": "visitor=me"}).json["threads"] == []


def test_a_thread_is_made_under_the_id_it_is_given_or_one_of_its_own(service: Service) -> None:
    made = service.client.post("/threads", json={"id": "mine"})
    assert (made.status_code, made.json["id"], made.headers["Location"]) == (201, "mine", "/threads/mine")
    others = {service.client.post("/threads", json={}).json["id"] for _ in range(3)}
    assert len(others) == 3
    assert Talk(service, "mine").show()["turns"] == []


def test_who_knows_a_thread_may_read_it_and_only_its_owner_may_change_it(service: Service) -> None:
    client = without_cookies(service)
    client.post("/streams", json={"thread": "t1", "prompt": "hi"}, headers=ANA)
    assert client.get("/threads/t1", headers=BEN).json["mine"] is False
    refused(
        client.patch("/threads/t1", json={"title": "x"}, headers=BEN),
        403,
        "invalid_request",
        code="owner",
    )
    refused(client.delete("/threads/t1", headers=BEN), 403, "invalid_request", code="owner")
    assert client.delete("/threads/t1", headers=ANA).status_code == 204


def test_a_deleted_thread_takes_its_runs_along(compose: Compose) -> None:
    gate = Gate()
    source = ScriptedSource([Token("half")], gate)
    talk = Talk(compose(source))
    stream_id = talk.post(prompt="one").json["stream_id"]
    gate.reached.wait(2)
    assert talk.service.client.delete("/threads/t1").status_code == 204
    assert source.closed == 1
    assert talk.service.client.get(f"/streams/{stream_id}").status_code == 410
    refused(talk.service.client.get("/threads/t1"), 404, "not_found")
    assert talk.service.client.delete("/threads/t1").status_code == 204


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"thread": "a b"}, 400, "wrong_value", "thread"),
        ({"thread": ""}, 400, "wrong_value", "thread"),
        ({"thread": "a" * 129}, 400, "wrong_value", "thread"),
        ({"thread": 1}, 400, "wrong_type", "thread"),
        ({"thread": "t", "follows": 1}, 400, "wrong_type", "follows"),
        ({"follows": "st_1"}, 400, "required", "thread"),
        ({"replaces": "st_1"}, 400, "required", "thread"),
        ({"thread": "t", "follows": "a", "replaces": "b"}, 400, "wrong_value", "follows"),
        ({"thread": "t", "follows": "st_1"}, 404, "unknown_turn", "follows"),
        ({"thread": "t", "replaces": "st_1"}, 404, "unknown_turn", "replaces"),
        ({"thread": "t", "replaces": "st_1", "prompt": None}, 404, "unknown_turn", "replaces"),
        ({"thread": "t", "continues": "st_1"}, 400, "wrong_value", "continues"),
        ({"thread": "t", "prompt": None}, 400, "required", "prompt"),
    ],
)
def test_what_a_turn_cannot_be_is_refused_by_name(
    shared: Service, fields: dict[str, Any], status: int, code: str, param: str
) -> None:
    with nothing_made(shared):
        response = shared.client.post("/streams", json={"prompt": "hi"} | fields)
        refused(response, status, "invalid_request", code=code, param=param)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "type_", "param"),
    [
        ("GET", "/threads/none", None, 404, "not_found", None),
        ("PATCH", "/threads/none", {"title": "x"}, 404, "not_found", None),
        ("GET", "/threads?limit=0", None, 400, "invalid_request", "limit"),
        ("GET", "/threads?limit=x", None, 400, "invalid_request", "limit"),
        ("POST", "/threads", {"id": "a/b"}, 400, "invalid_request", "id"),
        ("POST", "/threads", {"id": 1}, 400, "invalid_request", "id"),
        ("POST", "/threads", {"title": "x" * 201}, 400, "invalid_request", "title"),
        ("POST", "/threads", {"owner": "x"}, 400, "invalid_request", "owner"),
        ("PATCH", "/threads/known", {"title": "  "}, 400, "invalid_request", "title"),
        ("PATCH", "/threads/known", {}, 400, "invalid_request", "title"),
        ("GET", "/threads/known?turn=st_1", None, 404, "not_found", None),
    ],
)
def test_what_cannot_be_asked_of_threads_is_refused(
    shared: Service, method: str, path: str, body: Any, status: int, type_: str, param: str | None
) -> None:
    shared.client.post("/threads", json={"id": "known"})
    options = {} if body is None else {"json": body}
    refused(shared.client.open(path, method=method, **options), status, type_, param=param)


def test_the_next_page_of_a_list_that_is_gone_is_refused(shared: Service) -> None:
    client = without_cookies(shared)
    refused(client.get("/threads?after=gone", headers=ANA), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/threads"), ("DELETE", "/threads/t"), ("PATCH", "/threads/t")]
)
def test_another_sites_page_changes_nothing(shared: Service, method: str, path: str) -> None:
    response = shared.client.open(
        path, method=method, json={"title": "x"}, headers={"Sec-Fetch-Site": "cross-site"}
    )
    refused(response, 403, "invalid_request", code="origin")


def test_a_thread_of_chatkit_is_none_of_these(compose: Compose) -> None:
    service = compose(ScriptedSource(*says("x")))
    from streaming.threads import Thread

    service.streams.threads.store.create(Thread("ck", "", "chatkit", "", 1, 1))
    refused(service.client.get("/threads/ck"), 404, "not_found")
    refused(Talk(service, "ck").post(prompt="hi"), 404, "not_found")


def test_a_thread_has_so_many_turns_and_no_more(compose: Compose) -> None:
    talk = Talk(compose(ScriptedSource(*says("x"))))
    last = talk.ask("one")
    store = talk.service.streams.threads.store
    answer = talk.service.streams.threads.turn("t1", last).answer
    for number in range(1, MAX_TURNS):
        turn = Turn(f"st_{number}", last, "chat", "demo", "q", 1.0, answer=answer)
        store.put(item_of(turn, "t1"))
        last = turn.stream_id
    refused(talk.post(prompt="more"), 400, "invalid_request", code="too_long", param="thread")
    assert len(talk.show()["turns"]) == MAX_TURNS


def test_get_stream_asks_in_a_thread(talk: Talk, parrot: Parrot) -> None:
    talk.ask("one")
    talk.service.client.get("/stream?prompt=two&thread=t1").get_data()
    assert parrot.heard[-1] == "user: two"
    assert [prompt for prompt, _ in talk.said()] == ["one", "two"]


def test_the_pages_form_asks_in_a_thread(talk: Talk, parrot: Parrot) -> None:
    first = talk.ask("one")
    form = {"prompt": "uno\r\ndos", "thread": "t1", "replaces": first, "follows": "", "message_id": "m"}
    assert talk.service.client.post("/", data=form).status_code == 303
    eventually(lambda: talk.said() == [("uno\ndos", "You said uno\ndos.")])
    assert talk.show()["turns"][0]["versions"][0] == first
