"""The ending of a worker without gunicorn; ``tests/live/test_ending.py`` has it with the real one."""

from types import SimpleNamespace

import gevent
from gevent.event import Event as Flag

from streaming.worker import Ending
from tests.doubles import eventually


class Idler:
    """A connection that waits for its next request as gunicorn does, then answers it."""

    def __init__(self, worker: SimpleNamespace) -> None:
        self.request = Flag()
        self.answered = False
        self._worker = worker
        self.greenlet = gevent.spawn(self._serve)

    def _serve(self) -> str:
        got = False
        with self._worker.timeout_ctx():
            got = self.request.wait()
        if not got:
            return "closed while idle"
        gevent.sleep(0.01)
        self.answered = True
        return "answered"


def stopping_worker() -> tuple[SimpleNamespace, SimpleNamespace]:
    worker = SimpleNamespace(alive=True, cfg=SimpleNamespace(keepalive=75))
    streams = SimpleNamespace(drained=False, drain=lambda *_: setattr(streams, "drained", True))
    return worker, streams


def test_idle_connections_are_closed_when_the_worker_stops() -> None:
    worker, streams = stopping_worker()
    Ending(worker, streams, 1.0)
    idle = Idler(worker)
    gevent.sleep(0)

    worker.alive = False

    assert idle.greenlet.get(timeout=2) == "closed while idle"
    assert streams.drained


def test_a_request_that_comes_at_that_instant_is_answered() -> None:
    worker, streams = stopping_worker()
    ending = Ending(worker, streams, 1.0)
    idle = Idler(worker)
    gevent.sleep(0)
    loop = gevent.get_hub().loop

    loop.run_callback(idle.request.set)  # the request ...
    for timeout in list(ending._idle):
        loop.run_callback(gevent.spawn, ending._close_if_idle, timeout)  # ... and the decision to close
    eventually(lambda: idle.greenlet.dead, 2)

    assert idle.greenlet.value == "answered"
