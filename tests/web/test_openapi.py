"""``/openapi.json`` and ``/docs``: all that is there is described, and what is described is true."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from app import create_app
from streaming.registrations import EXAMPLES
from tests.web.conftest import FAST, Service, _end

WORK = {"GET", "POST", "PUT", "PATCH", "DELETE"}
SKIPPED = {
    "chatkit/session": "needs a workflow at OpenAI",
    "chatkit/refresh": "needs a workflow at OpenAI",
}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    """The service with its examples, which the description's examples ask."""
    kept = tmp_path_factory.mktemp("kept")
    app = create_app(
        replace(
            FAST,
            runnables=EXAMPLES,
            checkpoints_url=f"sqlite:///{kept / 'checkpoints.db'}",
            sessions_path=str(kept / "sessions.db"),
        )
    )
    yield app
    _end(app.extensions["streams"])


@pytest.fixture(scope="module")
def told(app: Flask) -> dict[str, Any]:
    found: dict[str, Any] = app.test_client().get("/openapi.json").json
    return found


def operations(told: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in told["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def described_path(rule: str) -> str:
    return re.sub(r"<(?:any\([^)]*\):|\w+:)?(\w+)>", r"{\1}", rule)


def test_every_address_is_described_and_nothing_else(app: Flask, told: dict[str, Any]) -> None:
    there = {
        (method, described_path(rule.rule))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) & WORK
    }
    assert {(method, path) for method, path, _ in operations(told)} == there


def test_it_is_openapi_3_1(told: dict[str, Any]) -> None:
    assert [str(error) for error in OPENAPI_31_VALIDATOR.iter_errors(told)] == []
    # The validator would say so if it were not.
    assert list(OPENAPI_31_VALIDATOR.iter_errors(told | {"openapi": "2.0"}))


def test_every_schema_is_one_and_every_reference_leads_somewhere(told: dict[str, Any]) -> None:
    def look(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(ref := value.get("$ref"), str):
                _, *way = ref.split("/")
                found: Any = told
                for step in way:
                    found = found[step]
            for each in value.values():
                look(each)
        elif isinstance(value, list):
            for each in value:
                look(each)

    look(told)
    for schema in told["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_names_for_clients_are_unique_and_words(told: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(told)]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z][A-Za-z]+", each) for each in ids)
    assert all("." not in name for name in told["components"]["schemas"])


def test_every_path_parameter_is_described(told: dict[str, Any]) -> None:
    for method, path, operation in operations(told):
        named = {each["name"] for each in operation.get("parameters", []) if each["in"] == "path"}
        assert named == set(re.findall(r"{(\w+)}", path)), (method, path)


def test_no_name_of_a_class_of_ours_is_in_a_description(told: dict[str, Any]) -> None:
    text = json.dumps({"paths": told["paths"], "schemas": told["components"]["schemas"]})
    assert "InvalidRequest" not in text
    assert "msgspec" not in text


def examples(told: dict[str, Any]) -> Iterator[Any]:
    for method, path, operation in operations(told):
        for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
            for name, example in content.get("examples", {}).items():
                yield method, path, operation, media_type, name, example["value"]


def validator(told: dict[str, Any], schema: dict[str, Any]) -> Draft202012Validator:
    registry = Registry().with_resource("urn:told", Resource(told, DRAFT202012))
    absolute = json.loads(json.dumps(schema).replace('"#/components', '"urn:told#/components'))
    return Draft202012Validator(absolute, registry=registry)


def test_every_example_works_as_it_stands_and_is_answered_as_described(
    app: Flask, told: dict[str, Any]
) -> None:
    client = app.test_client()
    tried = 0
    for method, path, operation, media_type, name, value in examples(told):
        content = operation["requestBody"]["content"][media_type]
        assert list(validator(told, content["schema"]).iter_errors(value)) == [], (path, name)
        if path.strip("/") in SKIPPED:
            continue
        path = path.replace("{name}", "explain").replace("{thread_id}", "th_example")
        if "stream_events" not in path and "{" in path:
            continue
        body = {"data": value} if "form" in media_type else {"json": value}
        response = client.open(path, method=method, **body)
        assert response.status_code < 400, (method, path, name, response.text)
        answer = operation["responses"][str(response.status_code)]
        assert response.mimetype in answer["content"], (path, name, response.mimetype)
        response.get_data()  # to its end, or its request would still be open in the next one
        if response.mimetype == "application/json":
            schema = answer["content"]["application/json"]["schema"]
            assert list(validator(told, schema).iter_errors(response.json)) == [], (path, name)
        tried += 1
    assert tried > 15


def test_the_document_is_asked_for_again_by_its_version(service: Service) -> None:
    first = service.client.get("/openapi.json")
    assert first.content_type == "application/json"

    again = service.client.get("/openapi.json", headers={"If-None-Match": first.headers["ETag"]})
    changed = service.client.get("/openapi.json", headers={"If-None-Match": '"other"'})

    assert (again.status_code, again.data) == (304, b"")
    assert changed.data == first.data


def test_the_page_for_people_has_every_operation_and_loads_nothing_from_elsewhere(
    service: Service, told: dict[str, Any]
) -> None:
    response = service.client.get("/docs", headers={"Host": "sluice.example"})

    page = response.text
    for _, _, operation in operations(told):
        assert f'id="op-{operation["operationId"]}"' in page
    for name in told["components"]["schemas"]:
        assert f'id="schema-{name}"' in page
    loaded = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="([^"]*)"', page)
    assert loaded
    assert all(each.startswith("/assets/") for each in loaded)
    assert "http://sluice.example/streams" in page
    assert "localhost:8000" not in page
    for anchor in re.findall(r'href="#([^"]*)"', page):
        assert f'id="{anchor}"' in page, anchor


def test_the_page_has_a_strict_policy_and_a_host_cannot_write_into_it(service: Service) -> None:
    first = service.client.get("/docs")
    second = service.client.get("/docs")

    policy = first.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    nonce = re.search(r"'nonce-([^']+)'", policy)
    assert nonce
    assert f'nonce="{nonce[1]}"' in first.text
    assert nonce[1] not in second.text
    forged = service.client.get("/docs", headers={"Host": 'a"><script>'})
    assert forged.status_code == 400 or 'a"><script>' not in forged.text
