"""Routes lead from a model's name to its upstream, then to its fallbacks; clients are shared by upstream."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import openai
import pytest

from streaming.errors import InvalidRequest
from streaming.settings import Settings
from streaming.sources._routes import Routes, routes_of
from streaming.upstreams import ModelSettings, UpstreamSettings

NEAR = UpstreamSettings("near", "http://127.0.0.1:1/v1", "sk-near")
FAR = UpstreamSettings("far", "https://models.example/v1", "sk-far", speaks_responses=True)
CATALOGUE = (
    ModelSettings("large", FAR, "org/large-2026", ("small", "tiny")),
    ModelSettings("small", NEAR, "small"),
    ModelSettings("tiny", NEAR, "tiny:1b", ("small",)),
)
SEVERAL = Settings(catalogue=CATALOGUE)


def test_the_first_choice_comes_first_then_the_fallbacks_in_their_order() -> None:
    routes = Routes(SEVERAL).of("large")

    assert [(route.name, route.model, route.upstream.name) for route in routes] == [
        ("large", "org/large-2026", "far"),
        ("small", "small", "near"),
        ("tiny", "tiny:1b", "near"),
    ]


def test_fallbacks_of_a_fallback_are_not_asked() -> None:
    assert [route.name for route in Routes(SEVERAL).of("tiny")] == ["tiny", "small"]


def test_all_routes_are_those_of_the_file() -> None:
    assert [route.name for route in Routes(SEVERAL).all()] == ["large", "small", "tiny"]


def test_a_model_that_is_not_in_the_file_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="known: large, small, tiny") as error:
        Routes(SEVERAL).of("medium")

    assert (error.value.code, error.value.param) == ("unknown_model", "model")


def test_without_a_file_every_name_leads_to_the_one_upstream() -> None:
    routes = Routes(Settings(openai_base_url="http://127.0.0.1:1/v1", model="usual"))

    (route,) = routes.of("whatever")

    assert (route.name, route.model, route.speaks_responses) == ("whatever", "whatever", None)
    assert [each.name for each in routes.all()] == ["usual"]
    assert routes.all()[0].client is route.client


def test_the_demo_model_is_a_route_too() -> None:
    (route,) = Routes(Settings()).all()

    assert (route.name, route.model, route.speaks_responses) == ("demo", "demo", False)


def test_routes_to_one_upstream_share_a_client_and_others_have_their_own() -> None:
    large, small, tiny = Routes(SEVERAL).of("large")

    assert small.client is tiny.client
    assert small.client is not large.client
    assert small.client._client is not large.client._client


def test_what_is_found_out_about_an_upstream_is_known_to_all_its_routes() -> None:
    routes = Routes(SEVERAL)
    large, small, tiny = routes.of("large")
    assert [large.speaks_responses, small.speaks_responses, tiny.speaks_responses] == [True, None, None]

    small.upstream.speaks_responses = False

    assert tiny.speaks_responses is False
    assert routes.of("tiny")[0].speaks_responses is False
    assert large.speaks_responses is True


def test_each_upstream_gets_its_own_key_and_nothing_the_sdk_finds_in_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "of-one-account")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://elsewhere/v1")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer of-one-account\nX-Key: of-one-account")

    large, small, _ = Routes(SEVERAL).of("large")
    bare = Routes(Settings(catalogue=(ModelSettings("m", UpstreamSettings("u", "http://h/v1"), "m"),))).of(
        "m"
    )

    for route, key in ((large, "sk-far"), (small, "sk-near"), (bare[0], "none")):
        headers = route.client.auth_headers | dict(route.client.default_headers)
        assert headers["Authorization"] == f"Bearer {key}"
        assert "of-one-account" not in str(headers)
        assert route.client.admin_api_key is None
        assert str(route.client.base_url).rstrip("/") == route.upstream._upstream.base_url


def test_sources_of_one_service_share_their_routes() -> None:
    assert routes_of(Settings(catalogue=CATALOGUE)) is routes_of(SEVERAL)
    assert routes_of(Settings(catalogue=CATALOGUE[1:2])) is not routes_of(SEVERAL)


class _Models(BaseHTTPRequestHandler):
    """Has no models; whoever speaks to it as to a proxy names the host in the first line."""

    def do_GET(self) -> None:
        body = b'{"object": "list", "data": []}'
        self.send_response(200 if self.path == "/v1/models" else 400)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Models) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_upstream_can_be_reached_past_the_proxy(server: str) -> None:
    def client(behind_proxy: bool) -> openai.OpenAI:
        upstream = UpstreamSettings("u", f"{server}/v1", behind_proxy=behind_proxy)
        settings = Settings(catalogue=(ModelSettings("m", upstream, "m"),), upstream_proxy=server)
        return Routes(settings).all()[0].client

    with client(behind_proxy=False) as past:
        assert past.models.list().data == []
    with client(behind_proxy=True) as through, pytest.raises(openai.BadRequestError):
        through.models.list()
