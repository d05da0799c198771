"""Security headers: on every answer of every address, refusals and streams included."""

import re
from typing import Any

import pytest
from werkzeug.routing import Rule

from tests.web.conftest import Service

ALWAYS = (
    "Content-Security-Policy",
    "Permissions-Policy",
    "Referrer-Policy",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "X-Request-Id",
)


def path_of(rule: Rule) -> str:
    """Return an address that the rule takes, of things that there are not."""
    return re.sub(r"<(?:[^:>]+:)?([^>]+)>", r"no-such-\1", rule.rule)


def check(response: Any) -> None:
    for name in ALWAYS:
        assert len(response.headers.getlist(name)) == 1, (name, response.headers)
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


def test_every_address_answers_with_the_security_headers(shared: Service) -> None:
    asked = 0
    for rule in shared.client.application.url_map.iter_rules():
        if rule.rule == "/ws":
            continue  # its handshake is not Flask's
        for method in rule.methods or ():
            response = shared.client.open(path_of(rule), method=method)
            assert response.status_code < 500 or response.status_code == 501, (method, rule, response.text)
            check(response)
            asked += 1
    assert asked > 50


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/no/such/address", 404),
        ("PATCH", "/streams", 405),
        ("POST", "/streams", 415),
        ("GET", "/streams/st_unknown", 404),
        ("GET", "/assets/old/page.js", 404),
        ("GET", "/%00%ff", 404),
    ],
)
def test_refusals_have_them_too(shared: Service, method: str, path: str, status: int) -> None:
    response = shared.client.open(path, method=method)
    assert response.status_code == status
    check(response)


def test_a_stream_has_them(service: Service) -> None:
    response = service.client.get("/stream?prompt=hi")
    assert response.headers["Content-Type"].startswith("text/event-stream")
    check(response)
    assert response.headers["Cache-Control"] == "no-store, no-transform"
    response.close()


def test_the_pages_own_policy_stands(shared: Service) -> None:
    policy = shared.client.get("/").headers["Content-Security-Policy"]
    assert "script-src 'nonce-" in policy


def test_a_workers_script_may_reach_this_service_and_nothing_else(shared: Service) -> None:
    found = re.search(r"/assets/[0-9a-f]+/", shared.client.get("/").text)
    assert found
    policy = shared.client.get(f"{found[0]}shared_worker.js").headers["Content-Security-Policy"]
    assert "connect-src 'self'" in policy
    assert "connect-src 'self'" not in shared.client.get("/healthz").headers["Content-Security-Policy"]


def test_strict_transport_is_asked_for_over_tls_only(shared: Service) -> None:
    assert "Strict-Transport-Security" not in shared.client.get("/healthz").headers
    secure = shared.client.get("/healthz", base_url="https://example.test")
    assert secure.headers["Strict-Transport-Security"].startswith("max-age=")
