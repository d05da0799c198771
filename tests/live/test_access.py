"""Who is let in, over time, over workers and machines, and by a proxy's word; and what does not start."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from tests.contracts.redis_server import RedisServer
from tests.live.conftest import StartService
from tests.live.keyed import DEMO, KEYS, bearer, keys_command, make_keys, url_of
from tests.live.service import (
    PATIENCE_SECONDS,
    REPOSITORY,
    EventReader,
    Service,
    Upstream,
    free_port,
    wait_until,
)
from tests.live.websocket import Talk

SLOW = {"tokens": 10_000, "pace_ms": 20}
KNOWN_SECONDS = 8.0
"""A lookup is remembered for 3 seconds."""
APP = "https://app.example.com"
SAYING = {"attachments": [], "inference_options": {}}


def prompt(token: str, **script: Any) -> str:
    return f"<<{json.dumps({'token': token, **SLOW, **script})}>>"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where `start_service` has its log."""
    return tmp_path


@pytest.fixture
def keys(directory: Path) -> dict[str, str]:
    return make_keys(url_of(directory))


def is_let_in(service: Service, key: str) -> bool:
    answer = service.request("GET", "/v1/models", None, bearer(key))
    assert answer.status in (200, 401), answer
    return answer.status == 200


# Over time


def test_a_key_made_while_the_service_runs_is_known_at_once_and_revoked_soon_on_every_worker(
    start_service: StartService, directory: Path
) -> None:
    service = start_service("", workers=2, environment={**DEMO, **KEYS})
    key = keys_command(url_of(directory), "create", "--name", "new")
    assert all(is_let_in(service, key) for _ in range(20))

    keys_command(url_of(directory), "revoke", key[10:18])

    wait_until(
        lambda: not any(is_let_in(service, key) for _ in range(20)), KNOWN_SECONDS, "no worker lets it in"
    )
    assert (
        service.request("GET", "/v1/models", None, bearer(key)).json()["error"]["code"] == "invalid_api_key"
    )
    assert service.request("GET", "/streams/st_x", None, bearer(key)).json()["error"]["code"] == "key_revoked"


def test_a_rotated_key_keeps_what_it_owns(start_service: StartService, directory: Path) -> None:
    service = start_service("", environment={**DEMO, **KEYS})
    old = keys_command(url_of(directory), "create")
    stream_id = service.request("POST", "/streams", {"prompt": "hi"}, bearer(old)).json()["stream_id"]

    new = keys_command(url_of(directory), "rotate", old[10:18], "--grace", "0")

    path = f"/streams/{stream_id}"
    assert wait_until(
        lambda: service.request("GET", path, None, bearer(new)).status == 200,
        KNOWN_SECONDS,
        "the new is known",
    )
    wait_until(
        lambda: service.request("GET", path, None, bearer(old)).status == 401, KNOWN_SECONDS, "the old is not"
    )


def test_keys_of_the_setting_need_no_store(start_service: StartService) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "streaming", "keys", "create", "--as-setting"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    entry = next(line for line in made.stderr.splitlines() if line.startswith(made.stdout[10:18]))
    service = start_service(
        "", environment={**DEMO, "API_KEYS": entry, "EVENTLOG_URL": "memory://", "AUTH": None}
    )

    assert is_let_in(service, made.stdout.strip())
    assert service.request("GET", "/v1/models").status == 401


def test_a_run_that_goes_on_is_out_of_reach_once_its_key_is_revoked(
    start_service: StartService, directory: Path, keys: dict[str, str], upstream: Upstream
) -> None:
    service = start_service(environment={"AUTH": "keys"})
    head = bearer(keys["owner"])
    body = {"prompt": prompt("revoked-run"), "on_disconnect": "continue"}
    stream_id = service.request("POST", "/streams", body, head).json()["stream_id"]

    keys_command(url_of(directory), "revoke", keys["owner"][10:18])

    path = f"/streams/{stream_id}"
    wait_until(lambda: service.request("GET", path, None, head).status == 401, KNOWN_SECONDS, "it is known")
    for method, rest in (("GET", "?format=native&after=1.1"), ("POST", "/cancel"), ("DELETE", "")):
        assert service.request(method, path + rest, None, head).status == 401
    assert service.request("GET", f"/streams?follow={stream_id}", None, head).status == 401


# Other ways to the same things


def test_a_websocket_opens_with_a_key_alone_and_ends_with_it(
    start_service: StartService, directory: Path, keys: dict[str, str], upstream: Upstream
) -> None:
    service = start_service(environment={"AUTH": "keys"})
    for key, status in ((None, 401), (keys["revoked"], 401), (keys["metrics"], 403)):
        with pytest.raises(InvalidStatus) as refused:
            Talk(service, additional_headers=bearer(key))
        assert refused.value.response.status_code == status

    with (
        Talk(service, additional_headers=bearer(keys["owner"])) as mine,
        Talk(service, additional_headers=bearer(keys["other"])) as others,
    ):
        stream_id = mine.start(prompt("ws-mine"))
        mine.until_type("token")
        for command in ("follow", "stop"):
            foreign = others.ask(command, stream_id=stream_id)
            unknown = others.ask(command, stream_id=stream_id[:11] + "a" * 26)
            assert foreign["type"] == "error", foreign
            assert foreign["error"]["type"] == "not_found"
            assert foreign["error"]["message"] == unknown["error"]["message"]
        assert others.ask("start", prompt="x", continues=stream_id)["error"]["type"] == "not_found"
        keys_command(url_of(directory), "revoke", keys["owner"][10:18])

        assert mine.closed(30) == (1008, "key_revoked")
        assert others.ask("ping")["type"] == "pong"


def test_what_a_graph_remembers_is_not_had_by_naming_anothers_thread(
    start_service: StartService, directory: Path, keys: dict[str, str]
) -> None:
    runnables = {
        "RUNNABLES": "approval=examples.approval:graph",
        "CHECKPOINTS_URL": f"sqlite:///{directory}/checkpoints.db",
    }
    service = start_service("", environment={**DEMO, **KEYS, **runnables})
    config = {"configurable": {"thread_id": "letter"}}
    path = "/runnables/approval/invoke"
    question = {"messages": [{"role": "user", "content": "Invite Ana to lunch"}]}
    first = service.request("POST", path, {"input": question, "config": config}, bearer(keys["owner"]))
    assert "__interrupt__" in first.json()["output"], first

    resumed = {
        who: service.request(
            "POST", path, {"input": {"resume": "no"}, "config": config}, bearer(keys[who])
        ).body.decode()
        for who in ("other", "owner")
    }

    assert "Nothing was sent." not in resumed["other"]
    assert "lunch" not in resumed["other"]
    assert "Nothing was sent." in resumed["owner"]


def test_who_leaves_chatkit_still_stops_a_run_of_its_own(
    start_service: StartService, keys: dict[str, str], upstream: Upstream
) -> None:
    service = start_service(environment={"AUTH": "keys"})
    content = [{"type": "input_text", "text": prompt("chatkit-key")}]
    asked = {"type": "threads.create", "params": {"input": {**SAYING, "content": content}}}
    with EventReader(service.port).open("/chatkit", bearer(keys["owner"]), "POST", asked) as reader:
        upstream.wait_for_request("chatkit-key")
        wait_until(
            lambda: len(reader.pump()) >= 0 and len(reader.events) > 3,
            PATIENCE_SECONDS,
            "the answer has begun",
        )
    upstream.wait_for_close("chatkit-key")
    thread = service.request(
        "POST", "/chatkit", {"type": "threads.list", "params": {"limit": 5}}, bearer(keys["owner"])
    ).json()
    assert len(thread["data"]) == 1


# Over machines


def test_machines_share_keys_through_redis(start_service: StartService, tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server:
        keys = make_keys(server.url)
        a, b = (start_service("", environment={**DEMO, **KEYS, "EVENTLOG_URL": server.url}) for _ in range(2))
        made = a.request("POST", "/streams", {"prompt": "hi"}, bearer(keys["owner"]))
        path = f"/streams/{made.json()['stream_id']}"
        assert b.request("GET", path, None, bearer(keys["owner"])).status == 200
        assert b.request("GET", path, None, bearer(keys["other"])).status == 404

        keys_command(server.url, "revoke", keys["owner"][10:18])

        for machine in (a, b):
            wait_until(lambda m=machine: not is_let_in(m, keys["owner"]), KNOWN_SECONDS, "it is known")
        server.stop()
        # Nobody can be looked up: nobody is let in, and it is not the caller's fault.
        wait_until(
            lambda: a.request("GET", "/v1/models", None, bearer(keys["admin"])).status == 503,
            30,
            "who cannot be looked up is told so",
        )
        for machine in (a, b):
            machine.kill()


# A proxy's word


@pytest.fixture
def proxied(start_service: StartService) -> Service:
    settings = {"AUTH": "proxy", "AUTH_PROXY_ADDRESSES": "127.0.0.1", "PROXY_HOPS": "1"}
    return start_service("", environment={**DEMO, **settings})


def test_a_proxy_says_who_asks(proxied: Service) -> None:
    ana, ben = {"X-Forwarded-User": "ana@example.com"}, {"X-Forwarded-User": "ben@example.com"}
    path = f"/streams/{proxied.request('POST', '/streams', {'prompt': 'hi'}, ana).json()['stream_id']}"

    assert proxied.request("GET", path, None, ana).status == 200
    assert proxied.request("GET", path, None, ben).status == 404
    assert proxied.request("GET", path).status == 401
    basic = ana | {"Authorization": "Basic YTpi"}  # the proxy's own
    assert proxied.request("GET", path, None, basic).status == 200


@pytest.mark.parametrize("name", ["ana,ben", "a" * 257, "a\x01b"])
def test_a_name_that_may_be_two_or_none_is_refused(proxied: Service, name: str) -> None:
    answer = proxied.request("GET", "/v1/models", None, {"X-Forwarded-User": name})
    assert answer.status in (400, 401)


def test_nobody_else_says_who_asks(start_service: StartService) -> None:
    settings = {"AUTH": "proxy", "AUTH_PROXY_ADDRESSES": "10.0.0.1", "PROXY_HOPS": "1"}
    service = start_service("", environment={**DEMO, **settings})
    for forged in ({}, {"X-Forwarded-For": "10.0.0.1"}, {"X-Real-IP": "10.0.0.1"}):
        head = {"X-Forwarded-User": "ana", **forged}
        answer = service.request("GET", "/streams/st_x", None, head)
        assert answer.status == 401
        assert answer.json()["error"]["code"] == "not_the_proxy"


# Other origins


def test_other_origins_may_use_the_api_only_if_they_are_named(
    start_service: StartService, keys: dict[str, str]
) -> None:
    service = start_service("", environment={**DEMO, **KEYS, "CORS_ORIGINS": f"{APP},http://localhost:3000"})
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-a"}
    head = bearer(keys["owner"])

    before = service.request("OPTIONS", "/streams", None, {"Origin": APP, **asks})
    assert before.status == 204
    assert before.headers["access-control-allow-origin"] == APP
    assert before.headers["access-control-allow-headers"] == "authorization,x-a"
    assert "access-control-allow-credentials" not in before.headers
    made = service.request(
        "POST", "/streams", {"prompt": "hi"}, {"Origin": APP, "Sec-Fetch-Site": "cross-site", **head}
    )
    assert made.status == 201
    assert made.headers["access-control-allow-origin"] == APP
    assert "Origin" in made.headers["vary"]
    refused = service.request("GET", "/threads", None, {"Origin": APP})
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, APP)

    for foreign in ("https://app.example.com.evil.test", "http://app.example.com", "null", f"{APP}:8443"):
        answer = service.request("OPTIONS", "/streams", None, {"Origin": foreign, **asks})
        assert "access-control-allow-origin" not in answer.headers
        made = service.request("POST", "/streams", {"prompt": "hi"}, {"Origin": foreign, **head})
        assert made.status == 403
        assert "access-control-allow-origin" not in made.headers
        assert "Origin" in made.headers["vary"]


def test_no_origin_is_named_by_default(start_service: StartService, keys: dict[str, str]) -> None:
    service = start_service("", environment={**DEMO, **KEYS})
    for method in ("OPTIONS", "GET"):
        answer = service.request(method, "/threads", None, {"Origin": APP, **bearer(keys["owner"])})
        assert not [name for name in answer.headers if name.startswith("access-control")]


# What does not start


def started(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run gunicorn until it ends by itself, or for a few seconds."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
    return subprocess.run(
        [sys.executable, "-m", "gunicorn", *arguments, "wsgi:app"],
        cwd=REPOSITORY,
        env=inherited | {"EVENTLOG_URL": "memory://", "RUNNABLES": "none", **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", ""])
def test_it_does_not_start_where_others_could_come_in_unless_told(host: str) -> None:
    bound = ["-b", f"{host}:{free_port()}"] if host else []

    done = started(*bound, PORT=str(free_port()))

    assert done.returncode == 1
    for choice in ("AUTH is not set", "AUTH=keys", "AUTH=open", "AUTH=proxy", "127.0.0.1"):
        assert choice in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"AUTH": "none"}, "AUTH"),
        ({"AUTH": "proxy"}, "AUTH_PROXY_ADDRESSES"),
        ({"AUTH": "proxy", "AUTH_PROXY_ADDRESSES": "everybody"}, "AUTH_PROXY_ADDRESSES"),
        ({"AUTH_PROXY_HEADER": "X User"}, "AUTH_PROXY_HEADER"),
        ({"CORS_ORIGINS": "*"}, "CORS_ORIGINS"),
        ({"CORS_ORIGINS": "https://*.example.com"}, "CORS_ORIGINS"),
        ({"CORS_ORIGINS": "https://app.example.com/"}, "CORS_ORIGINS"),
        ({"PROXY_HOPS": "-1"}, "PROXY_HOPS"),
        ({"BIND_HOST": "0.0.0.0:80 "}, "BIND_HOST"),
        ({"API_KEYS": "sk-sluice-4f2a9c01-" + "a" * 43}, "API_KEYS"),
    ],
)
def test_a_wrong_setting_of_access_stops_the_start_and_is_named(settings: dict[str, str], names: str) -> None:
    done = started("-b", f"127.0.0.1:{free_port()}", **settings)
    assert done.returncode != 0
    assert f"Sluice cannot start. {names}" in done.stderr
    assert "sk-sluice-4f2a9c01-a" not in done.stderr


def test_it_starts_anywhere_when_told(start_service: StartService) -> None:
    service = start_service("", environment={**DEMO, "AUTH": "open"})
    assert "access  everybody\n" in service.log_text()
    unsaid = start_service("", environment=DEMO)
    assert "access  everybody on this machine\n" in unsaid.log_text()
