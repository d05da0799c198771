"""``python -m streaming healthcheck``: what a container's health check runs."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from tests.live.service import REPOSITORY, Service, free_port


def healthcheck(*arguments: str, **variables: str) -> tuple[int, str, str]:
    """Return the status, and what it said to stdout and stderr."""
    ended = subprocess.run(
        [sys.executable, "-m", "streaming", "healthcheck", *arguments],
        cwd=REPOSITORY,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return ended.returncode, ended.stdout, ended.stderr


@contextlib.contextmanager
def server_that_says(answer: bytes) -> Iterator[int]:
    """Accept one connection, send ``answer`` and keep it open; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        over = threading.Event()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(answer)
                over.wait()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            thread.join()


@pytest.mark.parametrize("arguments", [[], ["--ready"]])
def test_a_service_that_answers_is_healthy(service: Service, arguments: list[str]) -> None:
    status, said, complaints = healthcheck(*arguments, PORT=str(service.port))

    assert (status, complaints) == (0, "")
    assert "200" in said


def test_a_proxy_of_the_environment_is_not_asked(service: Service) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"

    assert healthcheck(service.url, http_proxy=nobody, HTTP_PROXY=nobody)[0] == 0


def test_where_nobody_listens_it_is_unhealthy() -> None:
    status, said, complaints = healthcheck(f"http://127.0.0.1:{free_port()}")

    assert (status, said) == (1, "")
    assert "ConnectionRefusedError" in complaints


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 8\r\n\r\ndraining",
        b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
        b"",
    ],
    ids=["503", "redirect", "another protocol", "half an answer", "silence"],
)
def test_another_answer_than_200_in_time_is_unhealthy(answer: bytes) -> None:
    with server_that_says(answer) as port:
        status, said, complaints = healthcheck(f"http://127.0.0.1:{port}", "--timeout-seconds", "0.5")

    assert (status, said) == (1, "")
    assert complaints.count("\n") == 1


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", "http://x:port", "http://[::1"])
def test_what_is_no_url_is_wrong_use(url: str) -> None:
    status, said, complaints = healthcheck(url)

    assert (status, said) == (2, "")
    assert "url: " in complaints
