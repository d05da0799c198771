"""The doctor against real proxies: each fault is found by name, with the directive that mends it."""

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.live.nginx import Nginx
from tests.live.service import REPOSITORY, Service, Upstream, free_port

GOOD = """
    proxy_http_version 1.1;
    proxy_buffering off;
    client_max_body_size 17m;
    proxy_set_header Host $http_host;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $doctored;
"""
IN_HTTP = """
    map $http_upgrade $doctored { default upgrade; "" ""; }
    limit_conn_zone $binary_remote_addr zone=few:1m;
"""


BUSY = {("loop", "warning"), ("uneven", "warning"), ("blocked", "warning"), ("first_byte", "note")}


class Report(NamedTuple):
    status: int
    findings: dict[str, dict[str, Any]]
    """By their code."""
    printed: str

    @property
    def bad(self) -> dict[str, str]:
        """Return the level of everything that is not in order, but for what a busy machine does."""
        bad = {code: each["level"] for code, each in self.findings.items() if each["level"] != "ok"}
        return {code: level for code, level in bad.items() if (code, level) not in BUSY}

    def settings(self, code: str, where: str) -> str:
        """Return what is to be changed there against one finding."""
        changes = self.findings[code]["changes"]
        return " ".join(each["setting"] for each in changes if each["where"] == where)


def doctor(
    url: str, *options: str, environment: Mapping[str, str] | None = None, silence: float = 4
) -> Report:
    """Run the command and return what it found."""
    done = run(url, "--silence", str(silence), "--json", *options, environment=environment)
    findings = json.loads(done.stdout)["findings"] if done.stdout else []
    return Report(done.returncode, {each["code"]: each for each in findings}, done.stdout + done.stderr)


def run(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "streaming", "doctor", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture(scope="module")
def behind(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service that is behind every proxy here: what is wrong is not its fault."""
    service = Service(tmp_path_factory.mktemp("behind"), upstream.base_url)
    yield service
    service.kill()


ThroughNginx = Callable[..., Report]


@pytest.fixture
def through_nginx(behind: Service, tmp_path: Path) -> ThroughNginx:
    """Return a function that examines the service through nginx with some directives."""

    def examine(in_location: str, in_server: str = "", **options: Any) -> Report:
        nginx = Nginx.with_directives(tmp_path / "nginx", behind.port, in_location, in_server)
        site = tmp_path / "nginx" / "site.conf"
        site.write_text(IN_HTTP + site.read_text())
        with nginx:
            return doctor(nginx.url, **options)

    return examine


def test_the_configuration_people_are_given_is_in_order(behind: Service, tmp_path: Path) -> None:
    nginx = Nginx.as_deployed(tmp_path / "nginx", behind.port)
    assert "syntax is ok" in nginx.check()

    with nginx:
        report = doctor(nginx.url, environment={"SSL_CERT_FILE": str(tmp_path / "nginx" / "chain.pem")})

    assert (report.status, report.bad) == (0, {}), report.printed
    assert "HTTP/2 offered" in report.findings["http"]["measured"]
    log = (tmp_path / "nginx" / "access.log").read_text()
    assert "/doctor/ticks" in log
    assert "silence_s" not in log, "a query, which may hold a prompt, is in the log"


def test_without_a_proxy_nothing_is_wrong(behind: Service) -> None:
    report = doctor(behind.url)
    assert (report.status, report.bad) == (0, {}), report.printed


def test_a_proxy_that_buffers_is_found(through_nginx: ThroughNginx) -> None:
    # nginx's own way: HTTP/1.0 to the service; and the service's wish is not listened to.
    report = through_nginx("proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;")

    assert report.status == 1
    assert report.findings["buffering"]["level"] == "fault", report.printed
    assert "proxy_buffering off;" in report.settings("buffering", "nginx")
    assert "proxy_ignore_headers X-Accel-Buffering" in report.settings("buffering", "nginx")
    assert not report.settings("buffering", "Caddy"), "nginx was recognised: others are noise"


def test_buffering_is_off_where_the_service_asks_for_it(through_nginx: ThroughNginx) -> None:
    report = through_nginx(GOOD.replace("proxy_buffering off;", "proxy_buffering on;"))
    assert (report.status, report.bad) == (0, {}), report.printed


def test_a_proxy_that_compresses_streams_is_found(through_nginx: ThroughNginx) -> None:
    report = through_nginx(GOOD, "gzip on; gzip_types text/event-stream;")

    assert report.findings["compression"]["level"] in ("warning", "fault"), report.printed
    assert "gzip" in report.findings["compression"]["measured"]
    assert "text/event-stream" in report.settings("compression", "nginx")
    assert "gzip_types" in report.settings("compression", "nginx")


def test_a_proxy_that_compresses_other_things_is_in_order(through_nginx: ThroughNginx) -> None:
    report = through_nginx(GOOD, "gzip on; gzip_types application/json text/css;")
    assert (report.status, report.bad) == (0, {}), report.printed


def test_a_short_read_timeout_is_found_with_its_length(through_nginx: ThroughNginx) -> None:
    report = through_nginx(GOOD + "proxy_read_timeout 3s;", silence=9)

    cut = report.findings["idle_cut"]
    assert (report.status, cut["level"]) == (1, "fault"), report.printed
    after = float(cut["measured"].partition("after ")[2].partition(" s")[0])
    assert 2.5 < after < 4.5, cut["measured"]
    assert "proxy_read_timeout 1h;" in report.settings("idle_cut", "nginx")
    assert "HEARTBEAT_SECONDS" in report.settings("idle_cut", "this service")
    assert report.findings["heartbeats"]["level"] == "ok", "heartbeats each 2.3 s keep it open"


@pytest.mark.parametrize(
    ("directive", "code", "setting"),
    [
        ('proxy_set_header Last-Event-ID "";', "last_event_id", "proxy_set_header Last-Event-ID"),
        ('proxy_set_header Idempotency-Key "";', "idempotency_key", "proxy_set_header Idempotency-Key"),
        ("proxy_hide_header Stream-Id;", "stream_id", "proxy_hide_header Stream-Id"),
        (
            "proxy_hide_header Cache-Control; add_header Cache-Control max-age=60;",
            "cache_control",
            "add_header Cache-Control",
        ),
    ],
)
def test_a_header_that_is_lost_or_changed_is_found(
    through_nginx: ThroughNginx, directive: str, code: str, setting: str
) -> None:
    report = through_nginx(GOOD + directive, silence=1)
    assert report.bad.keys() == {code}, report.printed
    assert setting in report.settings(code, "nginx")


def test_nginx_as_it_comes_is_told_what_it_lacks(through_nginx: ThroughNginx) -> None:
    report = through_nginx("", silence=1)

    # HTTP/1.0 to the service, its own Host, no upgrades, bodies up to 1 MiB. Events pass, as asked.
    assert report.bad == {"host": "warning", "websocket": "warning", "large_body": "warning"}, report.printed
    assert report.status == 0
    assert "proxy_set_header Host $http_host;" in report.settings("host", "nginx")
    assert "proxy_set_header Upgrade $http_upgrade;" in report.settings("websocket", "nginx")
    assert "client_max_body_size" in report.settings("large_body", "nginx")


def test_a_limit_of_connections_is_found(through_nginx: ThroughNginx) -> None:
    report = through_nginx(GOOD + "limit_conn few 5;", silence=1)
    assert report.bad.get("few_at_once") == "warning", report.printed
    assert "limit_conn" in report.settings("few_at_once", "nginx")


# Others than nginx, as far as their headers tell


def test_caddy_is_recognised_and_told_in_its_own_words(through_nginx: ThroughNginx) -> None:
    # It is nginx that holds back; it gives itself out for another.
    caddy = "proxy_pass_header Server; add_header Via '1.1 Caddy' always;"
    report = through_nginx(f"proxy_buffering on; proxy_ignore_headers X-Accel-Buffering; {caddy}", silence=1)
    assert "flush_interval -1" in report.settings("buffering", "Caddy"), report.printed
    assert not report.settings("buffering", "nginx")


def test_heroku_s_router_cannot_be_changed_but_heartbeats_can(through_nginx: ThroughNginx) -> None:
    router = "proxy_pass_header Server; add_header Via '1.1 heroku-router' always;"
    report = through_nginx(f"{GOOD} proxy_read_timeout 3s; {router}", silence=6)
    assert "55 s" in report.settings("idle_cut", "Heroku"), report.printed
    assert "HEARTBEAT_SECONDS" in report.settings("idle_cut", "this service")


class ForgetfulNetwork:
    """Forgets a connection that was silent for so long, as address translation does: nobody is told."""

    def __init__(self, port: int, idle_seconds: float) -> None:
        self._to = port
        self._idle_seconds = idle_seconds
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def remove(self) -> None:
        for end in [self._listening, *self._ends]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _address = self._listening.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                self._ends += [near, far]
                threading.Thread(target=self._carry, args=(near, far), daemon=True).start()

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while ready := select.select([near, far], [], [], self._idle_seconds)[0]:
                for source, sink in ((near, far), (far, near)):
                    if source in ready:
                        data = source.recv(65536)
                        if not data:
                            sink.shutdown(socket.SHUT_WR)
                            return
                        sink.sendall(data)


def test_a_network_that_forgets_silent_connections_is_found(behind: Service) -> None:
    network = ForgetfulNetwork(behind.port, 3.0)
    report = doctor(network.url, silence=4.8)
    network.remove()

    cut = report.findings["idle_cut"]
    assert cut["level"] == "fault", report.printed
    # Nobody says when. The shorter silences came through, so it was between 2.4 and 4.8 s.
    assert "nothing came any more after 4.8 s" in cut["measured"]
    assert report.findings["heartbeats"]["level"] == "ok"


# What answers is no such service


def test_nothing_there_is_status_3() -> None:
    done = run(f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 3
    assert "cannot be reached" in done.stderr
    assert done.stdout == ""


def test_a_proxy_with_nothing_behind_it_is_told_so(tmp_path: Path) -> None:
    with Nginx.with_directives(tmp_path / "nginx", free_port(), "") as nginx:
        report = doctor(nginx.url)
    assert report.status == 1
    assert report.findings["no_service"]["level"] == "fault"
    assert "502" in report.findings["no_service"]["measured"]


def test_a_redirect_is_told_and_not_followed(through_nginx: ThroughNginx) -> None:
    report = through_nginx("return 301 https://elsewhere.example$request_uri;")
    assert report.status == 1
    assert "https://elsewhere.example/healthz" in report.findings["redirect"]["measured"]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("ftp://x",),
        ("http://x/?a=1",),
        ("http://x", "--silence", "0"),
        ("http://x", "--silence", "nan"),
        ("http://x", "--key", "a b"),
        ("http://[",),
    ],
)
def test_a_command_line_that_cannot_be_used_is_status_2(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr
    assert "Traceback" not in done.stderr


def test_a_password_in_the_address_is_not_shown(behind: Service) -> None:
    done = run(f"http://somebody:hidden-word@127.0.0.1:{behind.port}", "--silence", "1")
    assert "hidden-word" not in done.stdout + done.stderr
    assert "http://127.0.0.1" in done.stdout
