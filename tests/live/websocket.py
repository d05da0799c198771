"""A client of ``/ws``, on a library that the service does not use; and one that speaks bytes."""

import base64
import contextlib
import json
import os
import socket
import struct
from collections.abc import Callable
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.live.service import Service

Frame = dict[str, Any]
RECEIVE_SECONDS = 20.0


class Talk:
    """One WebSocket connection; ``frames`` holds all that came."""

    def __init__(self, service: Service, query: str = "", **options: Any) -> None:
        # Pings of the client's own would hide what ours do.
        options = {"ping_interval": None, "proxy": None, "max_size": None} | options
        self.connection: ClientConnection = connect(f"ws://127.0.0.1:{service.port}/ws{query}", **options)
        self.frames: list[Frame] = []

    def send(self, type_: str, **fields: Any) -> None:
        self.connection.send(json.dumps({"type": type_, **fields}))

    def receive(self, seconds: float = RECEIVE_SECONDS) -> Frame:
        """Return the next frame. Raises ``ConnectionClosed``, and ``TimeoutError``."""
        text = self.connection.recv(timeout=seconds)
        assert isinstance(text, str)
        frame: Frame = json.loads(text)
        self.frames.append(frame)
        return frame

    def until(self, condition: Callable[[Frame], bool], seconds: float = RECEIVE_SECONDS) -> list[Frame]:
        """Return the frames up to the first that fulfils ``condition``, which is the last of them."""
        came: list[Frame] = []
        while not came or not condition(came[-1]):
            came.append(self.receive(seconds))
        return came

    def until_type(self, type_: str) -> Frame:
        return self.until(lambda frame: frame["type"] == type_)[-1]

    def to_the_end(self) -> list[Frame]:
        """Return the frames up to a run's last event."""
        return self.until(lambda frame: frame.get("done", False))

    def ask(self, type_: str, **fields: Any) -> Frame:
        """Send a command and return its answer; what else comes meanwhile is in ``frames``."""
        name = f"ask-{len(self.frames)}"
        self.send(type_, request=name, **fields)
        return self.until(lambda frame: frame.get("request") == name)[-1]

    def start(self, prompt: str, **fields: Any) -> str:
        """Start a run and return its id."""
        answer = self.ask("start", prompt=prompt, **fields)
        assert answer["type"] == "started", answer
        stream_id: str = answer["stream_id"]
        return stream_id

    def closed(self, seconds: float = RECEIVE_SECONDS) -> tuple[int, str]:
        """Read on until the service closes; return its code and reason, 1006 for none."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                self.receive(seconds)
        close = self.connection.protocol.close_rcvd
        return (close.code, close.reason) if close else (1006, "")

    def cut(self) -> None:
        """Reset the TCP connection, without a word."""
        reset = struct.pack("ii", 1, 0)
        with contextlib.suppress(OSError):
            self.connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            self.connection.socket.shutdown(socket.SHUT_RDWR)
        self.connection.close()

    def __enter__(self) -> "Talk":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.connection.close()


def text_of(frames: list[Frame], stream_id: str | None = None) -> str:
    """Return the joined text of the ``token`` frames, of one run if it is named."""
    return "".join(
        frame["content"]
        for frame in frames
        if frame["type"] == "token" and stream_id in (None, frame["stream_id"])
    )


def events_of(frames: list[Frame], stream_id: str) -> list[Frame]:
    """Return the events of one run, after checking that each came once and in order."""
    events = [frame for frame in frames if "cursor" in frame and frame.get("stream_id") == stream_id]
    events = [event for event in events if event["type"] != "dropped"]
    seq = int(events[0]["cursor"].split(".")[1]) - events[0].get("n", 1) if events else 0
    for event in events:
        seq += event.get("n", 1)
        assert int(event["cursor"].split(".")[1]) == seq, f"{event} does not follow {seq}"
    return events


class Raw:
    """A client that sends bytes of the test's choice, and does not do what it does not say."""

    def __init__(self, service: Service, receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(20)
        self.socket.connect(("127.0.0.1", service.port))
        self.port = self.socket.getsockname()[1]

    def upgrade(self, headers: str = "") -> bytes:
        """Ask for the upgrade; return the head of the answer."""
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{headers}\r\n".encode("latin-1")
        )
        head = b""
        while b"\r\n\r\n" not in head:
            block = self.socket.recv(1)
            if not block:
                break
            head += block
        return head

    def send(self, opcode: int, payload: bytes, final: bool = True, masked: bool = True) -> None:
        self.socket.sendall(frame(opcode, payload, final, masked))

    def close_code(self) -> int:
        """Read to the end of the connection; return the code of the close frame, or 1006."""
        found = b""
        with contextlib.suppress(ConnectionError):
            while block := self.socket.recv(65536):
                found += block
        for opcode, payload in frames_in(found)[0]:
            if opcode == 8:
                return int.from_bytes(payload[:2], "big") if payload else 1005
        return 1006

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.socket.close()


TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def frame(opcode: int, payload: bytes, final: bool = True, masked: bool = True) -> bytes:
    """Return one frame. Source: RFC 6455, section 5.2."""
    head = bytes([opcode | 0x80 * final])
    mask_bit = 0x80 * masked
    if len(payload) < 126:
        head += bytes([len(payload) | mask_bit])
    elif len(payload) < 1 << 16:
        head += bytes([126 | mask_bit]) + struct.pack(">H", len(payload))
    else:
        head += bytes([127 | mask_bit]) + struct.pack(">Q", len(payload))
    # A mask of zeros leaves the payload as it is.
    return head + (b"\0\0\0\0" if masked else b"") + payload


def frames_in(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Return opcode and payload of each whole frame that a server sent, and the bytes after them."""
    found = []
    while len(data) >= 2:
        size, at = data[1] & 0x7F, 2
        if size >= 126:
            at = 4 if size == 126 else 10
            size = int.from_bytes(data[2:at], "big")
        if len(data) < at + size:
            break
        found.append((data[0] & 0x0F, data[at : at + size]))
        data = data[at + size :]
    return found, data
