"""``/v1/responses`` through Flask: what is made, kept, told, and refused."""

import json
from typing import Any

import gevent
import pytest
from werkzeug.test import TestResponse

from streaming.errors import UpstreamOverloaded, UpstreamQuota, UpstreamRejected, UpstreamTruncated
from streaming.events import Chunk, Done, Extra, Reasoning, ResponseEvent, Status, Token, ToolCall
from tests.doubles import Gate, ScriptedSource, UnsteadyLog, eventually, parse_event_stream, says
from tests.openai_schemas import check, check_event
from tests.web.conftest import Compose, Service, nothing_made

JSON = dict[str, Any]
PATH = "/v1/responses"
IMAGE = "https://example.com/cat.png"


def ask(service: Service, body: JSON | None = None, **fields: Any) -> TestResponse:
    return service.client.post(PATH, json={"input": "hello"} | (body or {}) | fields)


def made(service: Service, **fields: Any) -> JSON:
    """Make a response and return it, complete."""
    answer = ask(service, **fields)
    assert answer.status_code == 200, answer.text
    found: JSON = answer.json
    check("Response", found)
    return found


def told(answer: TestResponse) -> list[JSON]:
    """Return the events of an event stream, each checked against OpenAI's schema."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    parser = parse_event_stream(answer.data)
    bodies = []
    for heard in parser.heard:
        body = json.loads(heard.data)
        check_event(body)
        assert heard.type == body["type"]
        assert heard.last_event_id == ""
        bodies.append(body)
    return bodies


def refused(answer: TestResponse, status: int, param: str | None = None, code: str | None = None) -> JSON:
    """Check that an answer is an error in OpenAI's shape; return it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    error: JSON = answer.json["error"]
    assert {"message", "type", "param", "code"} <= error.keys()
    assert error["message"]
    assert error["param"] == param
    if code:
        assert error["code"] == code
    return error


def text_of(response: JSON) -> str:
    return "".join(
        part["text"]
        for item in response["output"]
        if item["type"] == "message"
        for part in item["content"]
        if part["type"] == "output_text"
    )


def path_of(response: JSON, more: str = "") -> str:
    return f"{PATH}/{response['id']}{more}"


def wait_for_end(service: Service, response: JSON) -> JSON:
    def ended() -> JSON | None:
        found: JSON = service.client.get(path_of(response)).json
        return found if found["status"] != "in_progress" else None

    found: JSON = eventually(ended)
    check("Response", found)
    return found


@pytest.fixture
def kept(compose: Compose) -> Service:
    """A service whose model says hello."""
    return compose(ScriptedSource(*says("Hel", "lo")))


# Made


def test_a_whole_answer_is_the_response_and_says_where_its_run_is(kept: Service) -> None:
    answer = ask(kept, instructions="Be kind.", metadata={"a": "b"})

    response = answer.json
    check("Response", response)
    assert response["status"] == "completed"
    assert text_of(response) == "Hello"
    assert response["instructions"] == "Be kind."
    assert response["metadata"] == {"a": "b"}
    stream_id = answer.headers["Stream-Id"]
    assert response["id"] == stream_id.replace("st_", "resp_")
    assert answer.headers["Content-Location"] == f"/streams/{stream_id}"
    assert answer.headers["Cache-Control"] == "no-store"
    assert kept.snapshot(stream_id)["text"] == "Hello"


def test_a_streamed_answer_is_its_events(kept: Service) -> None:
    answer = ask(kept, stream=True)

    events = told(answer)
    assert events[0]["type"] == "response.created"
    assert events[-1]["type"] == "response.completed"
    assert "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta") == "Hello"
    assert answer.headers["Stream-Id"].replace("st_", "resp_") == events[0]["response"]["id"]
    assert service_response(kept, events[0]["response"]) == events[-1]["response"]


def service_response(service: Service, response: JSON) -> JSON:
    found: JSON = service.client.get(path_of(response)).json
    return found


def test_the_source_gets_the_request_with_its_items(compose: Compose) -> None:
    source = ScriptedSource(*says("Hi"))
    service = compose(source)
    tools = [{"type": "function", "name": "look", "parameters": {"type": "object"}}]

    made(service, model="demo", tools=tools, temperature=0.5, include=["x"], store=True, unknown_field=[1])

    (prompt,) = source.prompts
    assert prompt.model == "demo"
    assert prompt.response == {
        "input": [{"type": "message", "role": "user", "content": "hello"}],
        "tools": tools,
        "temperature": 0.5,
        "include": ["x"],
        "unknown_field": [1],
    }


def test_items_are_passed_on_as_they_were_sent(compose: Compose) -> None:
    source = ScriptedSource(*says("Hi"))
    items = [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": IMAGE}],
        },
        {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}", "id": "fc_1"},
        {"type": "function_call_output", "call_id": "c", "output": "nothing"},
        {"type": "something_new", "of": {"its": "own"}},
    ]

    made(compose(source), input=items)

    assert source.prompts[0].response is not None
    assert source.prompts[0].response["input"] == items


def test_the_run_ends_with_its_only_reader(compose: Compose) -> None:
    gate = Gate()
    service = compose(ScriptedSource([Token("Hel")], gate))
    answer = ask(service, stream=True)
    stream_id = answer.headers["Stream-Id"]

    answer.close()

    eventually(lambda: service.snapshot(stream_id)["state"] == "cancelled")


def test_a_background_response_is_answered_at_once_and_goes_on_alone(compose: Compose) -> None:
    gate = Gate()
    service = compose(ScriptedSource(gate, *says("Hel", "lo")))

    answer = ask(service, background=True)

    response = answer.json
    check("Response", response)
    assert (response["status"], response["background"], response["output"]) == ("in_progress", True, [])
    assert answer.headers["Stream-Id"].replace("st_", "resp_") == response["id"]
    gate.open()
    assert text_of(wait_for_end(service, response)) == "Hello"


def test_a_background_stream_begins_before_the_model_and_survives_its_reader(compose: Compose) -> None:
    gate = Gate()
    service = compose(ScriptedSource(gate, *says("Hel", "lo")))

    answer = ask(service, background=True, stream=True)
    first = next(answer.iter_encoded())
    answer.close()

    assert b"event: response.created" in first
    response = json.loads(parse_event_stream(first).heard[0].data)["response"]
    gate.open()
    assert text_of(wait_for_end(service, response)) == "Hello"


def test_the_same_idempotency_key_joins_the_run(compose: Compose) -> None:
    source = ScriptedSource(*says("Hi"))
    service = compose(source)
    headers = {"Idempotency-Key": "k1"}

    first = service.client.post(PATH, json={"input": "hello"}, headers=headers)
    again = service.client.post(PATH, json={"input": "hello"}, headers=headers)
    other = service.client.post(PATH, json={"input": "goodbye"}, headers=headers)

    assert again.json == first.json
    assert again.headers["Idempotent-Replayed"] == "true"
    assert source.opened == 1
    refused(other, 422)


# Before and after the first word


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (UpstreamOverloaded("busy", status=503), 503, "true"),
        (UpstreamQuota("no money"), 429, "false"),
        (UpstreamRejected("not so", code="context_length_exceeded"), 400, None),
    ],
)
def test_a_run_that_fails_before_its_first_word_has_the_status_of_its_failure(
    compose: Compose, error: Exception, status: int, retry: str | None, stream: bool
) -> None:
    service = compose(ScriptedSource(error))

    answer = ask(service, stream=stream)

    assert answer.status_code == status
    assert answer.json["error"]["message"] == str(error)
    assert answer.headers.get("x-should-retry") == retry
    assert answer.headers["Stream-Id"].startswith("st_")
    assert ("Retry-After" in answer.headers) == (status in (429, 503))


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_a_header_tells_which_model_answered_instead(compose: Compose, stream: bool) -> None:
    service = compose(ScriptedSource([Status("fallback", 1, "second")], *says("hi")))

    answer = ask(service, stream=stream)

    assert answer.status_code == 200
    assert answer.headers["Stream-Fallback"] == "second"


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_no_header_tells_of_a_model_that_was_not_asked(compose: Compose, stream: bool) -> None:
    answer = ask(compose(ScriptedSource([Status("retrying", 1)], *says("hi"))), stream=stream)

    assert answer.status_code == 200
    assert "Stream-Fallback" not in answer.headers


def test_a_stream_that_fails_later_says_so_in_its_last_event(compose: Compose) -> None:
    gate = Gate()
    service = compose(ScriptedSource([Token("Hel")], gate, UpstreamTruncated("cut off")))
    answer = ask(service, stream=True)
    gate.open()

    events = told(answer)
    assert events[-1]["type"] == "response.failed"
    assert events[-1]["response"]["error"]["code"] == "server_error"
    assert text_of(events[-1]["response"]) == "Hel"


def test_a_whole_answer_that_was_cut_off_is_no_answer(compose: Compose) -> None:
    answer = ask(compose(ScriptedSource([Token("Hel")], UpstreamTruncated("cut off"))))

    refused(answer, 502)
    assert answer.headers["Stream-Id"].startswith("st_")


def test_a_store_that_goes_away_while_a_client_reads_ends_in_an_error_event(compose: Compose) -> None:
    log = UnsteadyLog()
    gate = Gate()
    service = compose(ScriptedSource([Token("Hel")], gate, *says("lo")), log)
    answer = ask(service, stream=True)
    body = answer.iter_encoded()
    begun = next(body)

    log.broken.add("read")
    gate.open()
    rest = b"".join(body)
    log.broken.clear()

    events = [json.loads(heard.data) for heard in parse_event_stream(begun + rest).heard]
    check_event(events[-1])
    assert events[-1]["type"] == "error"
    assert events[-1]["error"]["code"] == "store_unavailable"
    assert events[-1]["sequence_number"] == len(events) - 1


# Kept


def test_a_response_is_there_in_any_state(compose: Compose) -> None:
    gate = Gate()
    service = compose(ScriptedSource([Token("Hel")], gate, *says("lo")))
    response = ask(service, background=True).json
    gate.reached.wait(5)

    begun = service_response(service, response)
    check("Response", begun)
    assert (begun["status"], text_of(begun)) == ("in_progress", "Hel")
    assert begun["output"][0]["status"] == "in_progress"
    gate.open()
    assert text_of(wait_for_end(service, response)) == "Hello"


def test_a_run_of_another_dialect_is_a_response_too(kept: Service) -> None:
    stream_id = kept.finished(prompt="what?")

    answer = kept.client.get(f"{PATH}/{stream_id.replace('st_', 'resp_')}")

    check("Response", answer.json)
    assert text_of(answer.json) == "Hello"
    (item,) = kept.client.get(path_of(answer.json, "/input_items")).json["data"]
    assert item["content"] == [{"type": "input_text", "text": "what?"}]


@pytest.mark.parametrize("starting_after", [-1, 0, 3, 6, 100])
def test_a_stream_is_gone_on_with_after_the_last_number(kept: Service, starting_after: int) -> None:
    events = told(ask(kept, stream=True))
    after = "" if starting_after < 0 else f"&starting_after={starting_after}"

    answer = kept.client.get(path_of(events[0]["response"], f"?stream=true{after}"))

    assert told(answer) == events[starting_after + 1 :]
    assert answer.headers["Stream-Id"].startswith("st_")


def test_two_readers_hear_the_same_while_it_runs(compose: Compose) -> None:
    gate = Gate()
    service = compose(ScriptedSource([Token("Hel")], gate, *says("lo")))
    response = ask(service, background=True).json
    readers = [
        gevent.spawn(lambda: told(service.client.get(path_of(response, "?stream=true")))) for _ in range(2)
    ]
    gate.reached.wait(5)
    gate.open()

    first, second = (reader.get(timeout=5) for reader in readers)
    assert first == second
    assert first[-1]["type"] == "response.completed"


def test_cancelling_ends_the_run_and_keeps_what_was_said(compose: Compose) -> None:
    gate = Gate()
    source = ScriptedSource([Token("Hel")], gate, *says("lo"))
    service = compose(source)
    response = ask(service, background=True).json
    gate.reached.wait(5)

    cancelled = service.client.post(path_of(response, "/cancel"))

    assert cancelled.status_code == 200
    check("Response", cancelled.json)
    assert cancelled.json["status"] == "cancelled"
    assert text_of(cancelled.json) == "Hel"
    assert source.closed == 1
    again = service.client.post(path_of(response, "/cancel"))
    assert again.json == cancelled.json


def test_cancelling_what_has_ended_changes_nothing(kept: Service) -> None:
    response = made(kept)

    assert kept.client.post(path_of(response, "/cancel")).json == response


def test_who_reads_a_run_that_is_cancelled_is_told(compose: Compose) -> None:
    gate = Gate()
    service = compose(ScriptedSource([Token("Hel")], gate))
    response = ask(service, background=True).json
    reader = gevent.spawn(lambda: told(service.client.get(path_of(response, "?stream=true"))))
    gate.reached.wait(5)

    service.client.post(path_of(response, "/cancel"))

    last = reader.get(timeout=5)[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["status"] == "cancelled"


def test_what_was_deleted_is_gone(kept: Service) -> None:
    response = made(kept)

    answer = kept.client.delete(path_of(response))

    assert answer.json == {"id": response["id"], "object": "response", "deleted": True}
    refused(kept.client.get(path_of(response)), 404, code="response_not_found")
    refused(kept.client.delete(path_of(response)), 404)
    refused(ask(kept, previous_response_id=response["id"]), 400, "previous_response_id")


def test_deleting_ends_the_run(compose: Compose) -> None:
    source = ScriptedSource([Token("Hel")], Gate())
    service = compose(source)
    response = ask(service, background=True).json

    assert service.client.delete(path_of(response)).status_code == 200
    assert source.closed == source.opened


def test_what_was_not_to_be_stored_is_nobody_s_response(kept: Service) -> None:
    response = made(kept, store=False)

    assert response["store"] is False
    refused(kept.client.get(path_of(response)), 404)
    refused(kept.client.get(path_of(response, "/input_items")), 404)
    refused(kept.client.post(path_of(response, "/cancel")), 404)
    refused(kept.client.delete(path_of(response)), 404)
    refused(
        ask(kept, previous_response_id=response["id"]),
        400,
        "previous_response_id",
        "previous_response_not_found",
    )


@pytest.mark.parametrize(
    "id",
    [
        "resp_x",
        "st_" + "a" * 34,
        "resp_" + "a" * 34,
        "resp_" + "A" * 34,
        "%00",
        "resp_" + "a" * 5000,
        "résp_ü",
    ],
)
@pytest.mark.parametrize(
    ("method", "more"), [("GET", ""), ("POST", "/cancel"), ("DELETE", ""), ("GET", "/input_items")]
)
def test_an_id_of_nothing_is_not_found(kept: Service, id: str, method: str, more: str) -> None:
    refused(kept.client.open(f"{PATH}/{id}{more}", method=method), 404, code="response_not_found")


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("?stream=yes", "stream"),
        ("?stream=true&starting_after=-1", "starting_after"),
        ("?stream=true&starting_after=x", "starting_after"),
        ("?stream=true&starting_after=" + "9" * 100, "starting_after"),
        ("?starting_after=3", "starting_after"),
        ("/input_items?limit=0", "limit"),
        ("/input_items?limit=101", "limit"),
        ("/input_items?limit=ten", "limit"),
        ("/input_items?order=up", "order"),
        ("/input_items?after=msg_nobody", "after"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused_by_name(kept: Service, query: str, param: str) -> None:
    refused(kept.client.get(path_of(made(kept), query)), 400, param)


# Its input, and the turns before


def test_input_items_are_listed_in_pages_of_both_orders(kept: Service) -> None:
    texts = [f"line {number}" for number in range(45)]
    response = made(kept, input=[{"role": "user", "content": text} for text in texts])

    for order, expected in (("asc", texts), ("desc", texts[::-1])):
        found: list[JSON] = []
        after = ""
        while True:
            query = f"/input_items?order={order}&limit=20{after}"
            page = kept.client.get(path_of(response, query)).json
            assert page["object"] == "list"
            assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
            found += page["data"]
            if not page["has_more"]:
                break
            after = f"&after={page['last_id']}"
        assert [item["content"][0]["text"] for item in found] == expected
        assert len({item["id"] for item in found}) == 45
    default = kept.client.get(path_of(response, "/input_items")).json
    assert [item["content"][0]["text"] for item in default["data"]] == texts[::-1][:20]


def test_an_item_keeps_the_id_it_came_with(kept: Service) -> None:
    response = made(kept, input=[{"type": "message", "id": "msg_mine", "role": "user", "content": "hello"}])

    page = kept.client.get(path_of(response, "/input_items")).json
    assert page["data"] == [
        {
            "type": "message",
            "id": "msg_mine",
            "role": "user",
            "status": "completed",
            "content": [{"type": "input_text", "text": "hello"}],
        }
    ]


def test_a_response_goes_on_from_the_one_before_it_over_several_turns(compose: Compose) -> None:
    source = ScriptedSource(
        [Reasoning("hm"), Token("Let me look."), ToolCall("c1", "look", {"at": "it"})], [Done("tool_calls")]
    )
    service = compose(source)
    first = made(service, instructions="Only for this turn.")
    output = {"type": "function_call_output", "call_id": "c1", "output": "a cat"}
    second = made(service, input=[output], previous_response_id=first["id"])
    third = made(service, input="and now?", previous_response_id=second["id"])

    said = [
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Let me look.", "annotations": []}],
        },
        {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"at":"it"}'},
    ]
    question = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}
    inputs = [(prompt.response or {})["input"] for prompt in source.prompts]
    assert inputs[0] == [{"type": "message", "role": "user", "content": "hello"}]
    assert inputs[1] == [question, *said, output]
    assert inputs[2] == [
        question,
        *said,
        output,
        *said,
        {"type": "message", "role": "user", "content": "and now?"},
    ]
    assert "instructions" not in (source.prompts[1].response or {})
    assert third["previous_response_id"] == second["id"]
    listed = service.client.get(path_of(third, "/input_items?order=asc")).json["data"]
    assert [item["type"] for item in listed] == [
        "message",
        "reasoning",
        "message",
        "function_call",
        "function_call_output",
        "reasoning",
        "message",
        "function_call",
        "message",
    ]
    assert len({item["id"] for item in listed}) == len(listed)


def test_a_conversation_outlives_its_first_response(kept: Service) -> None:
    first = made(kept)
    second = made(kept, previous_response_id=first["id"])
    kept.client.delete(path_of(first))

    third = made(kept, input="more", previous_response_id=second["id"])

    assert len(kept.client.get(path_of(third, "/input_items")).json["data"]) == 5


def test_encrypted_reasoning_goes_back_to_the_model_and_other_reasoning_does_not(compose: Compose) -> None:
    thoughts = [
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "xyz"},
        {"type": "reasoning", "id": "rs_2", "summary": []},
    ]
    response = {
        "id": "resp_up",
        "object": "response",
        "status": "completed",
        "output": [*thoughts, "junk", 3],
    }
    end = [ResponseEvent({"type": "response.completed", "response": response}), Done("stop")]
    source = ScriptedSource(end)
    service = compose(source)
    first = ask(service).json

    ask(service, input="more", previous_response_id=first["id"])

    again = (source.prompts[1].response or {})["input"]
    assert again[1:-1] == [thoughts[0]]


def test_what_was_cut_off_goes_back_without_calls_that_are_not_whole(compose: Compose) -> None:
    begun = {"index": 0, "id": "c1", "function": {"name": "look", "arguments": '{"at'}}
    gate = Gate()
    source = ScriptedSource([Token("So"), Chunk(extra=Extra(delta={"tool_calls": [begun]}))], gate)
    service = compose(source)
    first = ask(service, background=True).json
    gate.reached.wait(5)
    cancelled = service.client.post(path_of(first, "/cancel")).json
    assert [item["type"] for item in cancelled["output"]] == ["message", "function_call"]
    gate.open()

    ask(service, input="more", previous_response_id=first["id"], background=True)

    eventually(lambda: len(source.prompts) == 2)
    again = (source.prompts[1].response or {})["input"]
    assert [item["type"] for item in again] == ["message", "message", "message"]
    assert again[1]["content"][0]["text"] == "So"


def test_a_response_in_progress_cannot_be_gone_on_from(compose: Compose) -> None:
    gate = Gate()
    service = compose(ScriptedSource(gate, *says("Hi")))
    running = ask(service, background=True).json

    answer = ask(service, previous_response_id=running["id"])

    error = refused(answer, 409, "previous_response_id", "previous_response_in_progress")
    assert "in progress" in error["message"]
    assert answer.headers["x-should-retry"] == "false"


def test_a_run_of_another_dialect_cannot_be_gone_on_from(kept: Service) -> None:
    stream_id = kept.finished()

    answer = ask(kept, previous_response_id=stream_id.replace("st_", "resp_"))

    refused(answer, 400, "previous_response_id", "previous_response_not_found")


@pytest.mark.parametrize("id", ["", "resp_x", "resp_" + "a" * 34, "\0", "\u2028" * 300, "x" * 100_000])
def test_a_previous_response_that_is_not_there_is_refused(kept: Service, id: str) -> None:
    with nothing_made(kept):
        answer = ask(kept, previous_response_id=id)

    error = refused(answer, 400, "previous_response_id", "previous_response_not_found")
    assert len(error["message"]) < 500


def test_a_conversation_is_refused_when_it_has_grown_too_long(compose: Compose) -> None:
    service = compose(ScriptedSource(*says("x" * 40)), settings={"max_prompt_chars": 100})
    first = made(service, input="a" * 40)

    refused(ask(service, input="b" * 40, previous_response_id=first["id"]), 413, "input", "too_long")


# Refused


def message(**fields: Any) -> JSON:
    return {"input": [{"role": "user", "content": "hello"} | fields]}


BODIES: dict[str, tuple[JSON, int, str]] = {
    "no input": ({"input": None}, 400, "input"),
    "blank input": ({"input": " \n"}, 400, "input"),
    "an empty list": ({"input": []}, 400, "input"),
    "input that is a number": ({"input": 5}, 400, "input"),
    "an item that is text": ({"input": ["a"]}, 400, "input[0]"),
    "an item without a type": ({"input": [{"a": 1}]}, 400, "input[0].type"),
    "an item whose type is a number": ({"input": [{"type": 1}]}, 400, "input[0].type"),
    "an unknown role": (message(role="robot"), 400, "input[0].role"),
    "a role that is a list": (message(role=["user"]), 400, "input[0].role"),
    "content that is a number": (message(content=5), 400, "input[0].content"),
    "no content": (message(content=None), 400, "input[0].content"),
    "a part that is text": (message(content=["a"]), 400, "input[0].content[0]"),
    "a part without a type": (message(content=[{}]), 400, "input[0].content[0]"),
    "a text that is none": (
        message(content=[{"type": "input_text", "text": 3}]),
        400,
        "input[0].content[0].text",
    ),
    "too many items": ({"input": message()["input"] * 1001}, 413, "input"),
    "too long a text": ({"input": "a" * 200_001}, 413, "input"),
    "too long instructions": ({"instructions": "a" * 200_001}, 413, "input"),
    "too long an output": ({"input": [{"type": "x", "output": [{"text": "a" * 200_001}]}]}, 413, "input"),
    "a model that is a number": ({"model": 5}, 400, "model"),
    "an unknown model": ({"model": "gpt-unknown"}, 404, "model"),
    "stream in words": ({"stream": "yes"}, 400, "stream"),
    "store in words": ({"store": "yes"}, 400, "store"),
    "background in words": ({"background": "yes"}, 400, "background"),
    "background that is not stored": ({"background": True, "store": False}, 400, "background"),
    "a previous response that is a number": ({"previous_response_id": 5}, 400, "previous_response_id"),
    "a conversation": ({"conversation": "conv_1"}, 400, "conversation"),
    "instructions in a list": ({"instructions": []}, 400, "instructions"),
    "a temperature in words": ({"temperature": "hot"}, 400, "temperature"),
    "too hot": ({"temperature": 3}, 400, "temperature"),
    "no tokens": ({"max_output_tokens": 0}, 400, "max_output_tokens"),
    "metadata that is text": ({"metadata": "x"}, 400, "metadata"),
    "metadata of numbers": ({"metadata": {"a": 1}}, 400, "metadata[...]"),
    "tools that are text": ({"tools": "x"}, 400, "tools"),
    "a tool that is text": ({"tools": ["x"]}, 400, "tools[0]"),
    "a tool choice that is a number": ({"tool_choice": 1}, 400, "tool_choice"),
    "text in words": ({"text": "json"}, 400, "text"),
    "reasoning in words": ({"reasoning": "low"}, 400, "reasoning"),
    "truncation in words": ({"truncation": "yes"}, 400, "truncation"),
    "a base URL": ({"base_url": "http://example.org"}, 400, "base_url"),
    "a key": ({"api_key": "sk-1"}, 400, "api_key"),
    "headers": ({"extra_headers": {"a": "b"}}, 400, "extra_headers"),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_makes_no_sense_is_refused_by_name_and_nothing_is_made(kept: Service, name: str) -> None:
    body, status, param = BODIES[name]
    with nothing_made(kept):
        answer = ask(kept, body)

    refused(answer, status, param)
    assert len(answer.data) < 2000, "an error repeats what was sent"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 400),
        (b"{input: 1}", 400),
        (b"[1]", 400),
        (b'"text"', 400),
        (b'{"input":"\xff"}', 400),
        (b'{"input":"\\ud800"}', 400),
        (b'{"input":"a","temperature":NaN}', 400),
        (b'{"input":"a","x":' + b"[" * 100 + b"]" * 100 + b"}", 400),
        (b"[" * 100_000, 400),
    ],
)
def test_what_is_not_json_is_refused(kept: Service, data: bytes, status: int) -> None:
    with nothing_made(kept):
        answer = kept.client.post(PATH, data=data, content_type="application/json")

    assert answer.status_code == status
    assert answer.json["error"]["type"] == "invalid_request_error"


def test_another_type_of_content_is_refused(kept: Service) -> None:
    refused(kept.client.post(PATH, data=b"input=hello"), 415)


def test_a_page_of_another_site_cannot_ask(kept: Service) -> None:
    answer = kept.client.post(PATH, json={"input": "a"}, headers={"Origin": "http://evil.example"})

    refused(answer, 403)


def test_a_bad_idempotency_key_is_refused(kept: Service) -> None:
    answer = kept.client.post(PATH, json={"input": "a"}, headers={"Idempotency-Key": "a b"})

    refused(answer, 400, "Idempotency-Key")


def test_a_prompt_that_the_upstream_keeps_needs_no_input(compose: Compose) -> None:
    source = ScriptedSource(*says("Hi"))

    response = made(compose(source), input=None, prompt={"id": "pmpt_1"})

    assert response["prompt"] == {"id": "pmpt_1"}
    assert source.prompts[0].response == {"input": [], "prompt": {"id": "pmpt_1"}}
