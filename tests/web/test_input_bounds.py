"""What a request may hold: addresses, numbers, names, characters; and what of it can never be chosen."""

import json
from typing import Any
from urllib.parse import quote

import pytest

from streaming.jsonlimits import MAX_VALUES
from tests.web.conftest import Service, nothing_made, refused


def with_image(url: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}


WRONG = [
    "file:///etc/passwd",
    "FILE:/etc/passwd",
    "ftp://a.example/x.png",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "javascript:alert(1)",
    "blob:https://a.example/x",
    "//a.example/x.png",
    "a.png",
    "",
    "http://",
    "http://:80/",
    "https://user:password@a.example/x.png",
    "https://a.example/x y.png",
    "https://a.example/\r\nHost: b",
    "https://[::1",
    "https://a.example/" + "x" * 5000,
    "data:text/html,<script>alert(1)</script>",
    "data:,x",
    "data:image/png",
    "data:application/pdf;base64,AAAA",
]
RIGHT = [
    "https://a.example/x.png?size=1#a",
    "http://127.0.0.1:9000/x.png",
    "https://ü.example/x.png",
    "data:image/png;base64,iVBORw0KGgo=",
    "DATA:image/svg+xml;charset=utf-8,%3Csvg%3E",
]


@pytest.mark.parametrize("url", WRONG)
def test_an_image_is_data_or_of_the_web_in_every_dialect(shared: Service, url: str) -> None:
    with nothing_made(shared):
        error = refused(shared.client.post("/streams", json=with_image(url)), 400, "invalid_request")
        assert error["param"] == "messages[0].content[0].image_url.url"
        chat = shared.client.post("/v1/chat/completions", json=with_image(url))
        assert (chat.status_code, chat.json["error"]["param"]) == (400, error["param"])
        part = {"type": "input_image", "image_url": url}
        responses = shared.client.post("/v1/responses", json={"input": [{"role": "user", "content": [part]}]})
        assert (responses.status_code, responses.json["error"]["param"]) == (
            400,
            "input[0].content[0].image_url",
        )


@pytest.mark.parametrize("url", RIGHT)
def test_other_images_are_passed_on(shared: Service, url: str) -> None:
    assert shared.client.post("/streams", json=with_image(url)).status_code == 201


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'{"prompt": "a", "prompt": "b"}', "prompt"),
        (b'{"prompt": "a", "params": {"seed": 1, "seed": 1}}', "seed"),
        (b'{"prompt": "a", "pr\\u006fmpt": "b"}', "prompt"),
        (b'{"prompt": "a\\u003a", "prompt": "\\u003A\\u003a"}', "prompt"),
        (b'{"messages": [{"role": "user", "content": "a", "role": "system"}]}', "role"),
    ],
)
def test_a_field_that_is_there_twice_is_refused_by_name(shared: Service, body: bytes, name: str) -> None:
    with nothing_made(shared):
        for path in ("/streams", "/v1/chat/completions"):
            response = shared.client.post(path, data=body, content_type="application/json")
            assert response.status_code == 400
            assert response.json["error"]["param"] == name


def test_a_body_of_a_million_values_is_refused_before_it_is_read(shared: Service) -> None:
    body = b"[" + b"1," * (MAX_VALUES + 1) + b"1]"
    response = shared.client.post("/streams", data=body, content_type="application/json")
    refused(response, 413, "invalid_request", code="too_large")


@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 5000, "0x1", "01", "1_0"]
)
def test_what_is_no_number_of_json_is_refused(shared: Service, number: str) -> None:
    body = f'{{"prompt": "a", "timeout_seconds": {number}}}'
    with nothing_made(shared):
        response = shared.client.post("/streams", data=body, content_type="application/json")
        refused(response, 400, "invalid_request")


@pytest.mark.parametrize("number", ["9" * 400, "-0", "-1", "0", "true", '"1"'])
def test_a_number_out_of_range_is_refused_by_its_field(shared: Service, number: str) -> None:
    body = f'{{"prompt": "a", "timeout_seconds": {number}}}'
    response = shared.client.post("/streams", data=body, content_type="application/json")
    refused(response, 400, "invalid_request", param="timeout_seconds")


@pytest.mark.parametrize("half", ["\\ud800", "\\udc00", "\\ud83d x", "\\ude00\\ud83d"])
def test_half_a_character_is_refused(shared: Service, half: str) -> None:
    body = f'{{"prompt": "a{half}"}}'
    refused(
        shared.client.post("/streams", data=body, content_type="application/json"), 400, "invalid_request"
    )


@pytest.mark.parametrize(
    "text",
    [
        "a\0b",
        "e\u0301 is not \u00e9",
        "\u202etxt.exe\u2066",
        "\ufeffa",
        "a\u2028b\x85c",
        "\U0010ffff",
        "👩‍👩‍👧",
    ],
)
def test_every_other_character_is_kept_as_it_came(service: Service, text: str) -> None:
    thread = service.client.post("/threads", json={}).json["id"]
    service.finished(prompt=text, thread=thread)
    turns = service.client.get(f"/threads/{thread}").json["turns"]
    assert turns[0]["prompt"] == text


@pytest.mark.parametrize(
    "name", ["base_url", "api_key", "api_base", "extra_headers", "proxy", "organization"]
)
def test_where_a_request_goes_is_not_for_its_sender_to_say(shared: Service, name: str) -> None:
    asked = {"messages": [{"role": "user", "content": "a"}], name: "http://127.0.0.1:1"}
    with nothing_made(shared):
        response = shared.client.post("/v1/chat/completions", json=asked)
        assert (response.status_code, response.json["error"]["param"]) == (400, name)
        response = shared.client.post("/streams", json={"prompt": "a", "params": {name: "x"}})
        refused(response, 400, "invalid_request", param=f"params.{name}")
        response = shared.client.post("/streams", json={"prompt": "a", name: "x"})
        refused(response, 400, "invalid_request", param=name)


FORGED = "a\r\nSet-Cookie: forged=1\r\n\r\n<script>"


@pytest.mark.parametrize(
    "path", ["/streams/{}", "/threads/{}", "/v1/models/{}", "/assets/x/{}", "/?thread={}"]
)
def test_no_address_makes_a_header(shared: Service, path: str) -> None:
    response = shared.client.get(path.format(quote(FORGED)))
    assert "forged" not in json.dumps(list(response.headers))
    assert "<script>" not in response.text


def test_no_header_of_a_request_makes_another_line(shared: Service) -> None:
    response = shared.client.get("/healthz", headers={"X-Request-Id": "a b\tSet-Cookie: forged"})
    assert response.headers["X-Request-Id"].startswith("req_")
