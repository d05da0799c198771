"""A parameter of an address that is there without a value, or twice, is refused by its name everywhere."""

import pytest

from tests.web.conftest import Service, nothing_made, refused

TYPED = [
    ("/stream?prompt=hello", ("format", "buffer_tokens", "buffer_ms", "metrics", "usage")),
    ("/stream?prompt=hello", ("source", "model", "message_id", "on_disconnect")),
    ("/streams/{stream}", ("format", "buffer_tokens", "buffer_ms", "metrics", "usage", "wait", "events")),
    ("/streams?follow={stream}", ("metrics",)),
    ("/threads", ("limit",)),
    ("/v1/responses/{response}", ("stream", "starting_after")),
    ("/v1/responses/{response}/input_items", ("order", "limit")),
    ("/doctor/ticks?count=0", ("every_ms", "silence_s", "heartbeat", "heartbeat_s")),
    ("/doctor/ticks?every_ms=1", ("count",)),
    ("/usage", ("from", "to", "by")),
]
EACH = [(path, name) for path, names in TYPED for name in names]
TEXTS = [
    ("/stream?prompt=hello", ("instructions", "after")),
    ("/streams/{stream}", ("after",)),
    ("/threads", ("after",)),
    ("/v1/responses/{response}/input_items", ("after",)),
]


@pytest.fixture(scope="module")
def stream_id(shared: Service) -> str:
    return shared.finished()


def address(path: str, stream_id: str, query: str) -> str:
    told = path.format(stream=stream_id, response=f"resp_{stream_id.removeprefix('st_')}")
    return f"{told}{'&' if '?' in told else '?'}{query}"


@pytest.mark.parametrize(("path", "name"), EACH)
def test_a_parameter_without_a_value_was_not_left_out(
    shared: Service, stream_id: str, path: str, name: str
) -> None:
    with nothing_made(shared):
        response = shared.client.get(address(path, stream_id, f"{name}="), buffered=True)

    assert response.status_code == 400, response.text
    assert response.json["error"]["param"] == name


@pytest.mark.parametrize(("path", "name"), EACH)
def test_a_parameter_that_is_given_twice_is_refused(
    shared: Service, stream_id: str, path: str, name: str
) -> None:
    with nothing_made(shared):
        response = shared.client.get(address(path, stream_id, f"{name}=1&{name}=1"), buffered=True)

    assert response.status_code == 400, response.text
    assert response.json["error"]["param"] == name
    assert "more than once" in response.json["error"]["message"]


@pytest.mark.parametrize(("path", "name"), [(path, name) for path, names in TEXTS for name in names])
def test_a_text_and_a_cursor_may_be_empty(shared: Service, stream_id: str, path: str, name: str) -> None:
    assert shared.client.get(address(path, stream_id, f"{name}="), buffered=True).status_code == 200


@pytest.mark.parametrize("name", ["format", "buffer_tokens", "buffer_ms", "metrics", "usage"])
@pytest.mark.parametrize("given", ["{}=", "{}=0&{}=0"])
def test_it_is_refused_before_a_run_is_started(shared: Service, name: str, given: str) -> None:
    with nothing_made(shared):
        response = shared.client.post(f"/streams?{given.format(name, name)}", json={"prompt": "hello"})

        refused(response, 400, "invalid_request", param=name)


@pytest.mark.parametrize("wait", ["1_0", "%D9%A1", "+1", "%201", "1%0A", "0x1", "infinity", "-1", "1e", "."])
def test_seconds_are_a_number_as_json_has_it(shared: Service, stream_id: str, wait: str) -> None:
    refused(shared.client.get(f"/streams/{stream_id}?wait={wait}"), 400, "invalid_request", param="wait")


@pytest.mark.parametrize("wait", ["0", "-0", "0.0", "0.01", "1e-3", "1E-3", "5e-324", ".01", "0."])
def test_a_wait_may_be_any_such_number(shared: Service, stream_id: str, wait: str) -> None:
    assert shared.client.get(f"/streams/{stream_id}?wait={wait}").status_code == 200


@pytest.mark.parametrize(
    ("path", "asked", "name"),
    [
        ("/doctor/ticks", "/doctor/ticks?count=0", "heartbeat_s"),
        ("/streams/{stream_id}", "/streams/{stream}", "wait"),
    ],
)
def test_a_duration_is_described_with_the_bound_that_is_looked_at(
    shared: Service, stream_id: str, path: str, asked: str, name: str
) -> None:
    told = shared.client.get("/openapi.json").json["paths"][path]["get"]["parameters"]
    (schema,) = [each["schema"] for each in told if each["name"] == name]
    bound = int(schema["exclusiveMaximum"])

    for given, status in ((bound - 1, 200), (bound, 400)):
        response = shared.client.get(address(asked, stream_id, f"{name}={given}"), buffered=True)
        assert response.status_code == status, response.text


@pytest.mark.parametrize(
    "day", ["2026-W47-6", "20261121", "2026-11-21T", "2026-11-31", "0000-01-01", " 2026-11-21"]
)
@pytest.mark.parametrize("name", ["from", "to"])
def test_a_day_is_in_the_one_form_that_is_described(shared: Service, name: str, day: str) -> None:
    refused(shared.client.get(f"/usage?{name}={day}"), 400, "invalid_request", param=name)
