"""The service in this process, for who has none running: the same application, without a port."""

import dataclasses
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from io import BytesIO
from typing import Any
from wsgiref.util import setup_testing_defaults

import gevent

from app import create_app
from streaming.registrations import NONE
from streaming.settings import Settings
from streaming.terminal.transport import Answer

DRAIN_SECONDS = 0.0


class Here:
    """Calls the application as a server does. Needs an interpreter patched by gevent."""

    def __init__(self, source: str) -> None:
        """Raises `SettingsError`. Of the runnables only ``source`` is loaded, and only if it is one."""
        settings = Settings.from_environ(os.environ)
        # Its log lines would stand in the answer.
        logging.getLogger("streaming").setLevel(logging.ERROR)
        wanted = [each for each in settings.registrations if each.name == source]
        runnables = tuple(f"{each.name}={each.module}:{each.attribute}" for each in wanted)
        self._app = create_app(
            dataclasses.replace(settings, eventlog_url="memory://", runnables=runnables or (NONE,))
        )

    def request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"", seconds: float = 10.0
    ) -> Answer:
        """See `Transport`; a call cannot be slow in arriving, so ``seconds`` is not needed."""
        path, _, query = path.partition("?")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": BytesIO(body),
        }
        for name, value in headers.items():
            key = name.upper().replace("-", "_")
            environ[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = value
        setup_testing_defaults(environ)
        return _Called(self._app, environ)

    def close(self) -> None:
        """End what still runs, so that nothing is left open at the model's."""
        streams = self._app.extensions["streams"]
        with suppress(gevent.Timeout), gevent.Timeout(3):
            streams.drain(DRAIN_SECONDS, 0.0)
            streams.close()


class _Called:
    def __init__(self, app: Callable[..., Any], environ: dict[str, Any]) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._body = app(environ, self._start)

    def _start(self, status: str, headers: list[tuple[str, str]], _error: Any = None) -> Callable[..., None]:
        self.status = int(status.split()[0])
        self.headers = {name.lower(): value for name, value in headers}
        return lambda _block: None

    def blocks(self) -> Iterator[bytes]:
        yield from self._body

    def expect_within(self, seconds: float) -> None:
        """There is no network to lose anything."""

    def close(self) -> None:
        if close := getattr(self._body, "close", None):
            close()
