"""The nginx of compose.yaml, before two instances on one Redis: what one made the other goes on with."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.redis_server import RedisServer
from tests.live.service import (
    PATIENCE_SECONDS,
    REPOSITORY,
    EventReader,
    Service,
    Upstream,
    free_port,
    request,
    text_of,
    wait_until,
)

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
pytestmark = pytest.mark.skipif(not NGINX, reason="nginx is not installed")


def config_for(folder: Path, ports: list[int], listen: int) -> Path:
    """Write compose's file with this machine's addresses in it, and nothing else changed."""
    said = (REPOSITORY / "deploy/compose.nginx.conf").read_text()
    changes = {
        "server sluice-1:8000": f"server 127.0.0.1:{ports[0]}",
        "server sluice-2:8000": f"server 127.0.0.1:{ports[1]}",
        "listen 8080": f"listen 127.0.0.1:{listen}",
        "/tmp/": f"{folder}/",
        "error_log /dev/stderr": f"error_log {folder}/error.log",
        "worker_connections 16384": "worker_connections 512",
    }
    for old, new in changes.items():
        assert old in said, old
        said = said.replace(old, new)
    path = folder / "nginx.conf"
    path.write_text(said)
    return path


@pytest.fixture(scope="module")
def instances(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Service]]:
    folder = tmp_path_factory.mktemp("compose")
    started: list[Service] = []
    with RedisServer(folder / "store") as store:
        try:
            for _ in range(2):
                each = Service(folder, upstream.base_url, environment={"EVENTLOG_URL": store.url})
                started.append(each)
            yield started
        finally:
            for each in started:
                each.kill()


@pytest.fixture(scope="module")
def entrance(instances: list[Service], tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of nginx."""
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    config = config_for(folder, [each.port for each in instances], port)
    nginx = [str(NGINX), "-e", str(folder / "error.log"), "-c", str(config)]
    tested = subprocess.run([*nginx, "-t"], capture_output=True, text=True, timeout=30, check=False)
    assert tested.returncode == 0, tested.stderr
    process = subprocess.Popen([*nginx, "-g", f"daemon off; {_as_root()}"])
    try:
        wait_until(lambda: _answers(port), PATIENCE_SECONDS, "nginx passes /healthz on")
        yield port
    finally:
        process.terminate()
        process.wait(timeout=10)


def _as_root() -> str:
    """Root's nginx gives its workers to nobody, who cannot write in this folder."""
    return "user root;" if os.geteuid() == 0 else ""


def _answers(port: int) -> bool:
    try:
        return request(port, "GET", "/healthz", timeout_seconds=2).status == 200
    except OSError:
        return False


def test_a_stream_is_followed_through_whichever_instance_nginx_chooses(
    entrance: int, instances: list[Service]
) -> None:
    texts = set()
    for _ in range(4):
        made = request(entrance, "POST", "/streams", {"prompt": "hi"}, {"Accept": "application/json"})
        assert made.status == 201, made
        with EventReader(entrance).open(f"/streams/{made.json()['stream_id']}") as reader:
            events = list(reader)
        assert events[-1].is_last
        texts.add(text_of(events))
    assert len(texts) == 1


def test_what_an_instance_that_died_had_made_is_read_from_the_other(
    entrance: int, instances: list[Service]
) -> None:
    made = instances[0].create("hi")
    with instances[0].follow(made) as reader:
        text = text_of(list(reader))
    instances[0].kill()

    for _ in range(4):  # nginx finds out that one of the two is gone
        with EventReader(entrance).open(f"/streams/{made}") as reader:
            assert text_of(list(reader)) == text
