"""``/ws``: runs over a WebSocket, for clients that want to talk back on the same connection."""

import base64
import binascii
import contextlib
import functools
import logging
import random
import socket
import threading
import time
from typing import Any

import gevent
from flask import Blueprint, Response, current_app, g, request
from flask_sock import Sock
from gevent.pool import Group
from simple_websocket import ConnectionClosed, Server
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError

from streaming.errors import InvalidRequest, StreamingError
from streaming.reader import Reader
from streaming.settings import Settings
from streaming.streams import Streams
from streaming.web import _bodies, _errors, _orders, _principals, _rights
from streaming.web._responses import Wishes
from streaming.web._websocket_wire import Wire
from streaming.websocket import Following, Session, dropped_frame

logger = logging.getLogger(__name__)

CLOSE_SECONDS = 3.0
"""How long a client may take to answer that it has heard of the end."""
LEAVE_SECONDS = 1.0
"""Over which the idle clients of a worker that stops are sent away: they come back all together."""
PARAMETERS = frozenset({"metrics", "buffer_tokens", "buffer_ms"})
# What sending raises once the client has gone.
GONE = (ConnectionClosed, LocalProtocolError, OSError)


def create(streams: Streams, settings: Settings) -> Blueprint:
    blueprint = Blueprint("ws", __name__)
    sock = Sock()
    options = {
        "max_message_size": settings.max_body_bytes,
        "ping_interval": settings.write_timeout_seconds,
        "receive_bytes": 65536,
        # One that waits for a client that says nothing must not hold the end of the process.
        "thread_class": functools.partial(threading.Thread, daemon=True),
    }
    blueprint.record_once(lambda state: state.app.config.update(SOCK_SERVER_OPTIONS=options))

    @blueprint.before_request
    def check() -> Response | None:
        if not _is_upgrade():
            return None
        _bodies.check_origin(request)
        streams.check_seats()
        for name in request.args:
            if name not in PARAMETERS:
                raise _bodies.unknown_field(name)
        Wishes.of(request, "native")
        return _prepare(settings)

    def talk(ws: Server) -> None:
        Connection(ws, streams, settings).serve()

    sock.route("/ws", bp=blueprint)(talk)

    @blueprint.get("/ws", websocket=False)
    def explain() -> Response:
        return _upgrade_required("this address speaks WebSocket: connect with ws:// or wss://")

    return blueprint


class Connection:
    """One client: a greenlet that takes its commands, and one for each run it follows."""

    def __init__(self, ws: Server, streams: Streams, settings: Settings) -> None:
        self._ws = ws
        self._wire: Wire = ws.sock
        self._wire.hold_back(ws.input_buffer)
        self._streams = streams
        self._idle_seconds = settings.connection_seconds
        self._drain_seconds = settings.drain_seconds
        self._busy_at = time.monotonic()
        self._session = Session(
            streams,
            lambda asked: _orders.from_fields(asked, settings, streams),
            _listen,
            _errors.request_id,
        )
        self._greenlets = Group()
        self._principal = _principals.current()
        self._leaving = False
        self._leaver: gevent.Greenlet | None = None
        self._rights = _rights.of(current_app)
        self._expelled: StreamingError | None = None
        self._closed_with: int | None = None

    def serve(self) -> None:
        """Answer commands until either side closes."""
        began = time.monotonic()
        commands = 0
        try:
            with self._streams.hosting(self._leave), _rights.watched(self._expel):
                while self._closed_with is None:
                    message = self._ws.receive(self._idle_seconds_left())
                    self._wire.took()
                    if not self._is_still_admitted():
                        continue  # until the goodbye is said
                    if message is None:
                        self._close_if_idle()
                    elif isinstance(message, str):
                        commands += 1
                        self._answer(message)
                    else:
                        self._close(CloseReason.UNSUPPORTED_DATA, "frames are text")
        except ConnectionClosed:
            pass
        except Exception:
            logger.exception("a websocket broke", extra={"request_id": _errors.request_id()})
            self._close(CloseReason.INTERNAL_ERROR, "something went wrong in this service")
        finally:
            self._end()
            logger.info(
                "websocket closed",
                extra={
                    "code": self._closed_with or int(self._ws.close_reason),
                    "commands": commands,
                    "seconds": round(time.monotonic() - began, 3),
                },
            )

    def _is_still_admitted(self) -> bool:
        """Say whether who opened this is still known; else see to the goodbye."""
        if self._expelled is None and self._rights:
            try:
                self._rights.check()
            except StreamingError as error:
                self._expel(error)
        return self._expelled is None

    def _expel(self, error: StreamingError) -> None:
        """Say goodbye to somebody who may not be here any more. Does not block."""
        if self._expelled is None:
            self._expelled = error
            self._leaver = gevent.spawn(self._see_out, error, self._leaver)

    def _see_out(self, error: StreamingError, leaver: gevent.Greenlet | None) -> None:
        if leaver:
            leaver.kill()
        for following in self._session.followed:
            following.expel(error)
        # Each says in a frame why its run is told no further, and up to where it was.
        self._greenlets.join(CLOSE_SECONDS)
        self._close(CloseReason.POLICY_VIOLATION, error.code)

    def _answer(self, message: str) -> None:
        g.pop("request_id", None)  # each command is a request of its own
        answer = self._session.take(message)
        self._busy_at = time.monotonic()
        # A client may stop a run and leave at once: what it sent before it left is done.
        with contextlib.suppress(*GONE):
            self._send([answer.frame])
        if answer.begun:
            if self._expelled:
                answer.begun.expel(self._expelled)
            self._greenlets.spawn(self._follow, answer.begun, _errors.request_id())
        self._leave_if_done()  # its last run may have been paused

    def _follow(self, following: Following, request_id: str) -> None:
        try:
            with (
                _principals.acting(self._principal),
                self._streams.attending(following.reader),
            ):
                while not following.has_ended:
                    self._send(following.next(self._idle_seconds))
        except StreamingError as error:
            self._drop(following, error, request_id)
        except GONE:
            self._wire.shutdown()
        except Exception:
            logger.exception("a websocket's run broke", extra={"request_id": request_id})
            self._drop(following, StreamingError("something went wrong in this service"), request_id)
        finally:
            self._session.forget(following)
            self._busy_at = time.monotonic()
            self._leave_if_done()

    def _drop(self, following: Following, error: StreamingError, request_id: str) -> None:
        with contextlib.suppress(*GONE):
            self._send([dropped_frame(following, error, request_id)])

    def _send(self, frames: list[str]) -> None:
        if frames:
            with self._wire.corked():
                for frame in frames:
                    self._ws.send(frame)

    # The end

    def _idle_seconds_left(self) -> float:
        if self._session.followed:
            return self._idle_seconds
        return max(0.001, self._busy_at + self._idle_seconds - time.monotonic())

    def _close_if_idle(self) -> None:
        if not self._session.followed and time.monotonic() >= self._busy_at + self._idle_seconds:
            self._close(CloseReason.NORMAL_CLOSURE, "idle")

    def _leave(self) -> None:
        """Go when nothing is being sent: this worker stops. Does not block."""
        self._leaving = True
        if self._expelled is None:
            self._leaver = gevent.spawn(self._see_off)

    def _see_off(self) -> None:
        gevent.sleep(random.uniform(0, LEAVE_SECONDS))
        self._leave_if_done()
        gevent.sleep(self._drain_seconds)
        # By now the runs here have ended. Who has not heard of it follows another worker's, or does not read.
        if self._wire.is_stuck:
            self._wire.shutdown()
        self._close(CloseReason.SERVICE_RESTART, "restarting, come back")

    def _leave_if_done(self) -> None:
        if self._leaving and not self._session.is_sending:
            self._close(CloseReason.SERVICE_RESTART, "restarting, come back")

    def _close(self, code: CloseReason, reason: str) -> None:
        """Say why, and make ``serve`` return."""
        if self._closed_with is not None:
            return
        self._closed_with = int(code)
        self._ws.input_buffer = _Discarding()
        self._wire.hold_back(())
        said = False
        with contextlib.suppress(*GONE), gevent.Timeout(CLOSE_SECONDS, False):
            self._ws.close(code, reason)
            said = True
        if not said:
            self._wire.shutdown()
        self._ws.connected = False
        self._ws.event.set()

    def _end(self) -> None:
        if self._leaver:
            self._leaver.kill()
        for following in self._session.followed:
            following.leave()
        self._ws.thread.join(CLOSE_SECONDS)
        self._wire.shutdown()
        self._ws.thread.join()
        self._greenlets.join()


class _Discarding(list[Any]):
    """An input buffer for commands that nobody will take any more."""

    def append(self, item: Any) -> None:
        pass


def _listen(reader: Reader) -> Following:
    wishes = Wishes.of(request, "native")
    return Following(reader, wishes.merging(reader), wishes.wire_format)


# The handshake


def _is_upgrade() -> bool:
    return request.url_rule is not None and bool(request.url_rule.websocket)


def _prepare(settings: Settings) -> Response | None:
    """Give simple-websocket a socket it can use, and a handshake it cannot stumble over.

    Source: RFC 6455, section 4.2.1.
    """
    if request.headers.get("Sec-WebSocket-Version") != "13":
        return _upgrade_required("WebSocket: version 13 of the protocol is spoken here")
    key = request.headers.get("Sec-WebSocket-Key", "")
    if not _is_key(key):
        raise InvalidRequest("Sec-WebSocket-Key: 16 bytes in base64", code="handshake")
    sock = request.environ.get("gunicorn.socket")
    if not isinstance(sock, socket.socket):
        raise StreamingError("this server does not hand over its connections", code="no_socket", status=501)
    # Nothing is compressed: tokens are small, and a compressor would hold 300 KiB for each client.
    request.environ = _bare(sock, key, settings)
    return None


def _bare(sock: socket.socket, key: str, settings: Settings) -> dict[str, Any]:
    return {
        "gunicorn.socket": Wire(sock, settings.write_timeout_seconds),
        "HTTP_HOST": "localhost",
        "HTTP_UPGRADE": "websocket",
        "HTTP_CONNECTION": "Upgrade",
        "HTTP_SEC_WEBSOCKET_VERSION": "13",
        "HTTP_SEC_WEBSOCKET_KEY": key,
    }


def _is_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def _upgrade_required(message: str) -> Response:
    response = _errors.refuse(InvalidRequest(message, code="upgrade_required", status=426))
    response.headers["Upgrade"] = "websocket"
    response.headers["Sec-WebSocket-Version"] = "13"
    return response
