"""Make the HTTP of unmodified clients part of the run that they work for.

What a user brings has clients of its own, made before there was a run, and a
framework moves their calls into greenlets of its own. Wrapped once, the
transports of httpx and httpx2 say whenever they wait, so that a cancel closes
the socket at once, wherever it is (docs/decisions/011).
"""

import functools
import importlib.util
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from gevent.monkey import get_original

from streaming import scope, traces

CLIENTS = ("httpx2", "httpx")

_thread_id: Callable[[], int] = get_original("_thread", "get_ident")


def scope_http_clients() -> None:
    """Wrap the blocking transport of each installed client library; again is the same as once.

    To be called on the thread of the worker's loop, which scopes belong to. What
    other real threads do is left alone: whoever started them ends them.
    """
    for name in CLIENTS:
        if importlib.util.find_spec(name) is not None:
            _wrap(import_module(name), _thread_id())


def _wrap(library: Any, loop_thread: int) -> None:
    transport = library.HTTPTransport
    inner: Callable[..., Any] = transport.handle_request
    if getattr(inner, "is_scoped", False):
        return
    body_kind = _body_kind(library.SyncByteStream)

    @functools.wraps(inner)
    def handle_request(self: Any, request: Any) -> Any:
        if _thread_id() != loop_thread:
            return inner(self, request)
        traces.write(request.headers)
        run = scope.current()
        with run.waiting():
            response = inner(self, request)
        response.stream = body_kind(response.stream, run, loop_thread)
        return response

    handle_request.is_scoped = True  # type: ignore[attr-defined]
    transport.handle_request = handle_request


def _body_kind(base: type[Any]) -> type[Any]:
    """Return a class of bodies that wait in a run's scope; ``base`` is what the library takes for one."""

    class ScopedBody(base):  # type: ignore[misc]
        def __init__(self, inner: Any, run: scope.Scope, loop_thread: int) -> None:
            self._inner = inner
            self._run = run
            self._loop_thread = loop_thread
            run.held.add(self)

        def __iter__(self) -> Iterator[bytes]:
            if _thread_id() != self._loop_thread:
                yield from self._inner
                return
            blocks = iter(self._inner)
            while True:
                with self._run.waiting():
                    block = next(blocks, None)
                if block is None:
                    self._run.held.discard(self)
                    return
                yield block

        def close(self) -> None:
            self._run.held.discard(self)
            self._inner.close()

    return ScopedBody
