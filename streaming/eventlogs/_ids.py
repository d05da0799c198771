"""Stream ids: eight characters that name the store, then 128 random bits, in base32."""

import re
import secrets

from streaming.errors import NotFound, StreamExpired, StreamLost

NO_STREAM = "no such stream"
"""What is said of a stream that is not there, and of one that is somebody else's."""
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_ID = re.compile(r"st_([a-z2-7]{8})[a-z2-7]{26}")


def new_store_id() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(8))


def new_stream_id(store_id: str) -> str:
    """Return an id nobody can guess."""
    return f"st_{store_id}" + "".join(secrets.choice(_ALPHABET) for _ in range(26))


def absent(stream_id: str, store_id: str, erased: bool) -> NotFound | StreamLost | StreamExpired:
    """Return the error that says why the store with ``store_id`` has no such stream."""
    match = _ID.fullmatch(stream_id)
    if match and match[1] != store_id:
        return StreamLost("this stream is in another store: on another machine, or in one that is gone")
    if erased:
        return StreamExpired("this stream was erased, or is older than streams are kept")
    return NotFound(NO_STREAM)
