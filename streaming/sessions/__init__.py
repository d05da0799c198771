"""What the sessions of the page share over workers and restarts, and what every store of it promises.

A session is in its browser's cookie, signed. Kept here is only what a signature
cannot say: the secret it is made with, and which sessions were ended early.

1. The secret is made once for a store; all workers see the same one.
2. What was ended is there for every worker once the call returned.

A store is in the same database as the event log, and shares its fate: with
another database all sessions are over.
"""

import secrets
from typing import NamedTuple, Protocol

SECRET_BYTES = 32


class Kept(NamedTuple):
    secret: bytes
    ended: frozenset[str]
    """Ids of sessions that were ended and whose cookies might still be shown."""


class SessionStore(Protocol):
    """Methods block the calling greenlet only. Any may raise `StoreUnavailable`."""

    def read(self) -> Kept:
        """Return all there is; makes the secret where there is none."""
        ...

    def end(self, session_id: str, until: float) -> None:
        """Remember that a session is over, until then (seconds since 1970), when its cookie is too."""
        ...

    def close(self) -> None: ...


def new_secret() -> bytes:
    return secrets.token_bytes(SECRET_BYTES)
