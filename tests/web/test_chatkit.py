"""``/chatkit``: what is refused and how, and what runnables become there."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from chatkit.types import ThreadStreamEvent
from pydantic import TypeAdapter
from werkzeug.test import TestResponse

from app import create_app
from streaming.errors import SettingsError, UpstreamFailure
from streaming.events import Done, Event, Reasoning, Token, ToolCall
from tests.doubles import ScriptedSource, says
from tests.web.conftest import FAST, Compose, Service, _end, heard, nothing_made, refused

event_type: TypeAdapter[Any] = TypeAdapter(ThreadStreamEvent)


def saying(text: str, **fields: Any) -> dict[str, Any]:
    content = [{"type": "input_text", "text": text}]
    return {"content": content, "attachments": [], "inference_options": {}} | fields


def ask(service: Service, type_: str, query: str = "", **params: Any) -> TestResponse:
    return service.client.post(f"/chatkit{query}", json={"type": type_, "params": params})


def events(service: Service, type_: str, query: str = "", **params: Any) -> list[dict[str, Any]]:
    response = ask(service, type_, query, **params)
    assert response.status_code == 200, response.text
    found = [json.loads(each.data) for each in heard(response)]
    for event in found:
        event_type.validate_python(event)
    return found


def begun(service: Service, query: str = "", text: str = "hello") -> str:
    thread_id: str = events(service, "threads.create", query, input=saying(text))[0]["thread"]["id"]
    return thread_id


def items(service: Service, thread_id: str) -> list[dict[str, Any]]:
    response = ask(service, "items.list", thread_id=thread_id, order="asc", limit=100)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json["data"]
    return found


REFUSED: dict[str, tuple[Any, int, str, str | None]] = {
    "no type": ({"params": {}}, 400, "required", "type"),
    "a type of another kind": ({"type": 1, "params": {}}, 400, "required", "type"),
    "an unknown type": ({"type": "threads.burn" * 99, "params": {}}, 400, "unknown_type", "type"),
    "no params": ({"type": "threads.list"}, 400, "wrong_type", "params"),
    "a list": ([], 400, "required", "type"),
    "no input": ({"type": "threads.create", "params": {}}, 400, "required", "params.input"),
    "nothing said": (
        {"type": "threads.create", "params": {"input": saying("  ")}},
        400,
        "required",
        "params.input.content",
    ),
    "content of another shape": (
        {"type": "threads.create", "params": {"input": saying("a") | {"content": "a"}}},
        400,
        "required",
        "params.input.content",
    ),
    "an unknown part": (
        {
            "type": "threads.create",
            "params": {"input": saying("a") | {"content": [{"type": "zz" * 999, "text": "a"}]}},
        },
        400,
        "wrong_type",
        "params.input.content.0",
    ),
    "too much said": (
        {"type": "threads.create", "params": {"input": saying("a" * 200_001)}},
        413,
        "too_long",
        "params",
    ),
    "an attachment": (
        {"type": "threads.create", "params": {"input": saying("a", attachments=["x"])}},
        400,
        "no_attachments",
        "params.input.attachments",
    ),
    "an unknown model": (
        {"type": "threads.create", "params": {"input": saying("a", inference_options={"model": "zz"})}},
        400,
        "unknown_model",
        "model",
    ),
    "a long id": (
        {"type": "threads.get_by_id", "params": {"thread_id": "x" * 129}},
        400,
        "wrong_value",
        "params.thread_id",
    ),
    "an empty title": (
        {"type": "threads.update", "params": {"thread_id": "x", "title": " "}},
        400,
        "wrong_value",
        "params.title",
    ),
    "an unknown order": (
        {"type": "threads.list", "params": {"order": "up"}},
        400,
        "wrong_type",
        "params.order",
    ),
    "a file": (
        {"type": "attachments.create", "params": {"name": "a", "size": 1, "mime_type": "image/png"}},
        400,
        "no_attachments",
        "attachments",
    ),
    "a file to delete": (
        {"type": "attachments.delete", "params": {"attachment_id": "a"}},
        400,
        "no_attachments",
        "attachments",
    ),
    "dictation": (
        {"type": "input.transcribe", "params": {"audio_base64": "YQ==", "mime_type": "audio/webm"}},
        400,
        "no_dictation",
        "type",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_is_refused_by_name(shared: Service, name: str) -> None:
    body, status, code, param = REFUSED[name]
    with nothing_made(shared):
        response = shared.client.post("/chatkit", json=body)
    refused(response, status, "invalid_request", code=code, param=param)


@pytest.mark.parametrize(
    ("type_", "params"),
    [
        ("threads.get_by_id", {}),
        ("threads.update", {"title": "a"}),
        ("threads.delete", {}),
        ("items.list", {}),
        ("items.feedback", {"item_ids": ["a"], "kind": "positive"}),
        ("threads.add_user_message", {"input": saying("a")}),
        ("threads.retry_after_item", {"item_id": "a"}),
        ("threads.add_client_tool_output", {"result": 1}),
        ("threads.add_structured_input", {"item_id": "a", "input": {}}),
        ("threads.custom_action", {"action": {"type": "a"}}),
        ("threads.sync_custom_action", {"action": {"type": "a"}}),
    ],
)
def test_an_unknown_thread_is_not_found(shared: Service, type_: str, params: dict[str, Any]) -> None:
    with nothing_made(shared):
        refused(ask(shared, type_, thread_id="thr_nope", **params), 404, "not_found")


def test_what_is_no_json_or_too_deep_is_refused(shared: Service) -> None:
    post = shared.client.post
    refused(post("/chatkit", data="{", content_type="application/json"), 400, "invalid_request")
    refused(post("/chatkit", data="{}", content_type="text/plain"), 415, "invalid_request")
    deep = '{"type": "threads.list", "params": ' + '{"a":' * 999 + "1" + "}" * 1000
    refused(post("/chatkit", data=deep, content_type="application/json"), 400, "invalid_request")
    refused(post("/chatkit?source=zz", json={}), 400, "invalid_request", code="unknown_source")
    refused(post("/chatkit?on_disconnect=zz", json={}), 400, "invalid_request", param="on_disconnect")
    refused(post("/chatkit?zz=1", json={}), 400, "invalid_request", code="unknown_field", param="zz")
    elsewhere = {"Origin": "https://evil.example"}
    for path in ("/chatkit", "/chatkit/session", "/chatkit/refresh"):
        refused(post(path, json={}, headers=elsewhere), 403, "invalid_request", code="origin")


def test_a_request_about_an_item_of_another_kind_is_refused(service: Service) -> None:
    thread_id = begun(service)
    asked, answer = items(service, thread_id)
    for type_, params in (
        ("threads.retry_after_item", {"item_id": answer["id"]}),
        ("threads.add_client_tool_output", {"result": 1}),
        ("threads.add_structured_input", {"item_id": asked["id"], "input": {}}),
    ):
        refused(ask(service, type_, thread_id=thread_id, **params), 409, "invalid_request", code="wrong_item")
    missing = ask(service, "threads.retry_after_item", thread_id=thread_id, item_id="nope")
    refused(missing, 404, "not_found", param="params.item_id")
    assert items(service, thread_id) == [asked, answer]


def test_actions_are_refused_in_words(service: Service) -> None:
    thread_id = begun(service)
    last = events(service, "threads.custom_action", thread_id=thread_id, action={"type": "a"})[-1]
    assert (last["type"], last["allow_retry"]) == ("error", False)
    assert "no widgets" in last["message"]
    of_an_item = {"action": {"type": "a"}, "item_id": items(service, thread_id)[0]["id"]}
    assert events(service, "threads.custom_action", thread_id=thread_id, **of_an_item)[-1] == last
    at_once = ask(service, "threads.sync_custom_action", thread_id=thread_id, action={"type": "a"})
    refused(at_once, 400, "invalid_request", code="no_actions")


def test_feedback_is_taken_for_items_that_are_there(service: Service) -> None:
    thread_id = begun(service)
    _, answer = items(service, thread_id)
    given = {"thread_id": thread_id, "kind": "positive"}
    assert ask(service, "items.feedback", item_ids=[answer["id"]], **given).json == {}
    refused(ask(service, "items.feedback", item_ids=["nope"], **given), 404, "not_found")
    refused(ask(service, "items.feedback", item_ids=["a"] * 101, **given), 400, "invalid_request")


def test_what_the_service_notes_about_a_thread_is_not_told(service: Service) -> None:
    thread_id = begun(service)
    found = ask(service, "threads.get_by_id", thread_id=thread_id)
    assert found.json["metadata"] == {}


def test_an_error_before_the_answer_is_told_in_our_words(compose: Compose) -> None:
    service = compose(ScriptedSource(UpstreamFailure("the model's server failed")))
    *_, last = events(service, "threads.create", input=saying("a"))
    assert last == {
        "type": "error",
        "code": "custom",
        "message": "The model's server failed.",
        "allow_retry": True,
    }


def test_what_breaks_is_told_without_its_words(compose: Compose) -> None:
    service = compose(ScriptedSource([Token("a")], RuntimeError("a secret")))
    response = ask(service, "threads.create", input=saying("a"))
    assert "a secret" not in response.text
    assert json.loads(heard(response)[-1].data)["type"] == "error"


def test_a_tool_of_the_client_is_answered_by_it_and_the_model_goes_on(compose: Compose) -> None:
    class Source(ScriptedSource):
        def events(self, prompt: Any) -> Any:
            self.prompts.append(prompt)
            if prompt.messages[-1]["role"] == "tool":
                yield [Token("A red one."), Done("stop")]
            else:
                yield [ToolCall("c1", "pick", {"of": "hats"}), Done("tool_calls")]

    source = Source()
    service = compose(source)
    asked = events(service, "threads.create", input=saying("Which?"))
    call = asked[-1]["item"]
    assert (call["type"], call["status"]) == ("client_tool_call", "pending")
    thread_id = asked[0]["thread"]["id"]
    output = {"colour": "red"}
    answered = events(service, "threads.add_client_tool_output", thread_id=thread_id, result=output)
    assert answered[-1]["item"]["content"][0]["text"] == "A red one."
    roles = [message["role"] for message in source.prompts[-1].messages]
    assert roles == ["user", "assistant", "tool"]
    assert [item["type"] for item in items(service, thread_id)] == [
        "user_message",
        "client_tool_call",
        "assistant_message",
    ]
    assert items(service, thread_id)[1]["output"] == output


def test_reasoning_is_work_beside_the_text(compose: Compose) -> None:
    said: list[Event] = [Reasoning("hm"), Token("Yes."), Done("stop")]
    service = compose(ScriptedSource(said))
    thread_id = begun(service)
    assert [item["type"] for item in items(service, thread_id)] == [
        "user_message",
        "workflow",
        "assistant_message",
    ]


def test_the_thread_keeps_the_source_it_was_begun_with(compose: Compose) -> None:
    service = compose(ScriptedSource(*says("a")))
    thread_id = begun(service, "?source=responses")
    told = events(service, "threads.add_user_message", "?source=chat", thread_id=thread_id, input=saying("b"))
    assert told
    stored = service.streams.threads.store.items(thread_id)
    assert [json.loads(item.body)["source"] for item in stored if item.kind == "turn"] == ["responses"] * 2


def test_a_thread_that_is_full_takes_no_more(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    thread_id = begun(service)
    monkeypatch.setattr("streaming.chatkit.server.MAX_ITEMS", 2)
    more = ask(service, "threads.add_user_message", thread_id=thread_id, input=saying("a"))
    refused(more, 400, "invalid_request", code="too_long")


def test_an_answer_that_is_erased_below_streams_is_forgotten_here(service: Service) -> None:
    thread_id = begun(service)
    assert len(items(service, thread_id)) == 2
    (turn,) = _turns(service, thread_id)
    assert service.client.delete(f"/streams/{turn.id}").status_code == 204
    assert [item["type"] for item in items(service, thread_id)] == ["user_message"]


def test_each_visitor_lists_their_own_threads(service: Service) -> None:
    def listed() -> list[str]:
        return [thread["id"] for thread in ask(service, "threads.list").json["data"]]

    mine = begun(service)
    assert listed() == [mine], "the visitor of the first request is not known at the second"
    service.client.delete_cookie("visitor")
    assert listed() == []
    other = begun(service)
    assert listed() == [other]
    assert ask(service, "threads.get_by_id", thread_id=mine).status_code == 200


# Runnables


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service with a graph that asks and an agent."""
    directory = tmp_path_factory.mktemp("examples")
    settings = replace(
        FAST,
        runnables=("approval=examples.approval:graph", "agent=examples.agent:agent"),
        checkpoints_url=f"sqlite:///{directory / 'checkpoints.db'}",
        chatkit_source="agent",
    )
    app = create_app(settings)
    made = Service(app, lambda: 0)
    yield made
    _end(made.streams)


def test_an_agents_tools_are_shown_as_work(examples: Service) -> None:
    thread_id = begun(examples, text="What is the weather in Paris?")
    _, work, answer = items(examples, thread_id)
    (task,) = work["workflow"]["tasks"]
    assert (task["title"], task["status_indicator"]) == ("get_weather", "complete")
    assert "18" in answer["content"][0]["text"]


def test_a_graph_asks_and_goes_on_with_the_answer(examples: Service) -> None:
    asked = events(examples, "threads.create", "?source=approval", input=saying("Invite Ana"))
    thread_id, waiting = asked[0]["thread"]["id"], asked[-1]["item"]
    assert (waiting["type"], waiting["status"]) == ("structured_input", "pending")
    (question,) = waiting["inputs"]
    assert [option["value"] for option in question["options"]] == ["yes", "no"]
    answer = {"answers": {question["id"]: {"values": ["yes"]}}}
    told = events(
        examples, "threads.add_structured_input", thread_id=thread_id, item_id=waiting["id"], input=answer
    )
    assert "The letter was sent." in told[-1]["item"]["content"][0]["text"]
    kept = items(examples, thread_id)
    assert [item["type"] for item in kept] == [
        "user_message",
        "assistant_message",
        "structured_input",
        "assistant_message",
    ]
    assert kept[2]["inputs"][0]["answer"]["values"] == ["yes"]


def test_a_graph_that_is_asked_again_forgets_what_was_taken_back(examples: Service) -> None:
    thread_id = begun(examples, "?source=approval", "Invite Ana")
    first = items(examples, thread_id)
    events(examples, "threads.retry_after_item", thread_id=thread_id, item_id=first[0]["id"])
    again = items(examples, thread_id)
    assert [item["type"] for item in again] == [item["type"] for item in first]
    waiting = again[-1]
    answer = {"answers": {waiting["inputs"][0]["id"]: {"values": ["no"]}}}
    told = events(
        examples, "threads.add_structured_input", thread_id=thread_id, item_id=waiting["id"], input=answer
    )
    assert "Nothing was sent." in told[-1]["item"]["content"][0]["text"]


def test_a_runnable_remembers_the_thread_until_something_is_taken_back(examples: Service) -> None:
    thread_id = begun(examples, "?source=agent", "one")
    events(examples, "threads.add_user_message", thread_id=thread_id, input=saying("two"))

    def memories() -> list[str]:
        return [json.loads(item.body)["memory"] for item in _turns(examples, thread_id)]

    first, second = memories()
    assert first == second
    asked = [item for item in items(examples, thread_id) if item["type"] == "user_message"]
    events(examples, "threads.retry_after_item", thread_id=thread_id, item_id=asked[1]["id"])
    first, second = memories()
    assert first != second
    events(examples, "threads.add_user_message", thread_id=thread_id, input=saying("three"))
    assert memories() == [first, second, second]


def _turns(service: Service, thread_id: str) -> list[Any]:
    return [item for item in service.streams.threads.store.items(thread_id) if item.kind == "turn"]


# Settings


def test_a_source_that_is_not_there_stops_the_start() -> None:
    with pytest.raises(SettingsError, match="CHATKIT_SOURCE: no source is called 'zz'"):
        create_app(replace(FAST, chatkit_source="zz"))


def test_hosted_sessions_say_which_setting_is_missing(compose: Compose) -> None:
    service = compose(ScriptedSource())
    for path in ("/chatkit/session", "/chatkit/refresh"):
        error = refused(service.client.post(path), 501, "not_configured")
        assert "CHATKIT_WORKFLOW_ID" in error["message"]
    service = compose(ScriptedSource(), settings={"chatkit_workflow_id": "wf_1"})
    error = refused(service.client.post("/chatkit/session", json={}), 501, "not_configured")
    assert "OPENAI_API_KEY" in error["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"user": ""}, "user"),
        ({"user": "a" * 129}, "user"),
        ({"user": "a b"}, "user"),
        ({"user": 1}, "user"),
        ({"thread_id": "\n"}, "thread_id"),
        ({"zz": 1}, "zz"),
    ],
)
def test_a_session_is_asked_for_within_limits(shared: Service, body: dict[str, Any], param: str) -> None:
    refused(shared.client.post("/chatkit/session", json=body), 400, "invalid_request", param=param)
