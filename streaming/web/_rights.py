"""Whether those who opened what is open may still have it: one look for all of a worker, now and then.

A key that is revoked or expires, and a session that ends, end what was opened with
them: event streams, polls that wait, WebSockets. What a revoked key had started is
cancelled too, because what it costs is why it was revoked. Nothing is done for a
chunk: each key that has something open is looked up every `LOOK_SECONDS`, all with
one question to the store, by a greenlet that there is only while something is open.
"""

import logging
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import gevent
from flask import Flask, current_app, g, has_app_context
from gevent.lock import BoundedSemaphore
from msgspec import Struct

from streaming.errors import NotAuthenticated, NotFound, StreamExpired, StreamingError
from streaming.keyring import Keyring, is_taken
from streaming.keys import Key
from streaming.observers import Nobody, RunFacts
from streaming.reader import Reader
from streaming.web._refused import RefusalLog

logger = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
"""A key may have been let in for `keyring.FRESH_SECONDS` after its end: that makes five in all."""
CANCELLED_AT_ONCE = 50


class Proof(Struct, frozen=True):
    """What somebody was let in by, as far as it can be looked at again without their request."""

    key: str
    """Its id."""
    fingerprint: str
    session: str = ""
    """The id of the session that was begun with the key; "" for the key itself."""
    session_until: float = math.inf
    """Seconds since 1970."""


class Why(NamedTuple):
    code: str
    message: str

    def error(self) -> NotAuthenticated:
        return NotAuthenticated(self.message, code=self.code)


REVOKED = Why("key_revoked", "this key was revoked")
REPLACED = Why("key_revoked", "this key was replaced by another one")
GONE = Why("key_revoked", "this key is not known any more")
EXPIRED = Why("key_expired", "this key has expired")
ENDED = Why("session_ended", "this session has ended: sign in again")

Expel = Callable[[StreamingError], object]
"""Tells somebody why they may not go on. Must not block."""


class Rights(Nobody):
    """The rights under which this worker holds connections open. It is told of runs as their observer."""

    def __init__(self, keys: Keyring, refused: RefusalLog) -> None:
        self.ended_sessions: Callable[[], Collection[str]] = frozenset
        """Returns the sessions that were ended early, as it is now. May block."""
        self.cancel: Callable[[str], object] | None = None
        """Cancels a run, whoever asks. May block."""
        self._keys = keys
        self._refused = refused
        self._open: defaultdict[Proof, set[Expel]] = defaultdict(set)
        self._ended: Collection[str] = frozenset()
        self._runs: defaultdict[str, set[str]] = defaultdict(set)
        """The streams that are produced here, by the key that started them."""
        self._started_by: dict[str, str] = {}
        self._revoked: set[str] = set()
        """Keys that were revoked at the last look, whose runs are cancelled at the next."""
        self._stopping: set[str] = set()
        self._stops = BoundedSemaphore(CANCELLED_AT_ONCE)
        self._looking: gevent.Greenlet | None = None
        self._can_look = True

    # What is open

    def reading(self, reader: Reader) -> AbstractContextManager[None]:
        """Expel the reader meanwhile, once who asks may not read any more."""
        return self.watched(reader.expel)

    def watched(self, expel: Expel) -> AbstractContextManager[None]:
        """Call ``expel`` meanwhile, at most once, if the right ends that this request came with.

        To be called in the request; it may be entered after it.
        """
        proof = current()
        return self._watched(proof, expel) if proof else nullcontext()

    @contextmanager
    def _watched(self, proof: Proof, expel: Expel) -> Iterator[None]:
        self._open[proof].add(expel)
        self._begin()
        try:
            yield
        finally:
            if found := self._open.get(proof):
                found.discard(expel)
                if not found:
                    del self._open[proof]

    def check(self) -> None:
        """Raise `NotAuthenticated` if the right of this request is known to have ended. Cheap."""
        proof = current()
        if proof is None:
            return
        try:
            key = self._keys.look_up(proof.key)
        except StreamingError:
            return  # whatever is done with the right needs the same store
        if why := why_not(proof, key, self._ended, time.time()):
            raise why.error()

    # Runs: see `Observer`

    def started(self, run: RunFacts) -> None:
        if proof := current():
            self._runs[proof.key].add(run.stream_id)
            self._started_by[run.stream_id] = proof.key
            self._begin()

    def ended(self, run: RunFacts, end: object) -> None:
        key_id = self._started_by.pop(run.stream_id, "")
        if streams := self._runs.get(key_id):
            streams.discard(run.stream_id)
            if not streams:
                del self._runs[key_id]

    # Looking

    def _begin(self) -> None:
        if self._looking is None:
            self._looking = gevent.spawn(self._look_often)

    def _look_often(self) -> None:
        while True:
            gevent.sleep(LOOK_SECONDS)
            if not (self._open or self._runs):
                self._looking = None
                return
            try:
                self.look()
                self._can_look = True
            except StreamingError as error:
                # Nothing is read from that store either; who is still here when it is back is looked at then.
                if self._can_look:
                    logger.warning("keys in use could not be looked at", extra={"why": error.code})
                self._can_look = False
            except Exception:
                logger.exception("looking at the keys in use broke")

    def look(self) -> None:
        """End what is not to be open any more. Blocks for the store; raises `StoreUnavailable`."""
        proofs = list(self._open)
        keys = self._keys.look_again({proof.key for proof in proofs} | self._runs.keys())
        if any(proof.session for proof in proofs):
            self._ended = self.ended_sessions()
        now = time.time()
        ended: Counter[tuple[str, Why]] = Counter()
        for proof in proofs:
            if why := why_not(proof, keys.get(proof.key), self._ended, now):
                ended[proof.key, why] += self._expel(proof, why)
        for (key_id, why), count in ended.items():
            said = {"key_id": key_id, "why": why.code, "connections": count}
            logger.info("what was open has ended with the right to it", extra=said)
            self._refused.count("connection", why.code, count)
        self._cancel_runs(keys)

    def _expel(self, proof: Proof, why: Why) -> int:
        told = self._open.pop(proof, set())
        for expel in told:
            expel(why.error())
        return len(told)

    def _cancel_runs(self, keys: Mapping[str, Key]) -> None:
        """Cancel what revoked keys have running here; also what should have ended before, and has not."""
        revoked = {key_id for key_id in self._runs if (key := keys.get(key_id)) and key.revoked is not None}
        # By the next look every worker has told its readers why, which a cancelled run does not say.
        due, self._revoked = revoked & self._revoked, revoked
        for key_id in due:
            streams = self._runs[key_id] - self._stopping
            if streams:
                said = {"key_id": key_id, "why": REVOKED.code, "streams": len(streams)}
                logger.warning("streams are cancelled: their key was revoked", extra=said)
            for stream_id in streams:
                self._stopping.add(stream_id)
                gevent.spawn(self._cancel, stream_id)

    def _cancel(self, stream_id: str) -> None:
        try:
            with self._stops:
                if self.cancel is not None:
                    self.cancel(stream_id)
        except (NotFound, StreamExpired):
            pass  # it is gone already
        except StreamingError as error:
            said = {"stream_id": stream_id, "why": error.code}
            logger.warning("a stream was not cancelled, to be tried again", extra=said)
        finally:
            self._stopping.discard(stream_id)


def why_not(proof: Proof, key: Key | None, ended: Collection[str], now: float) -> Why | None:
    """Return why this does not let anybody in any more; ``None`` if it does."""
    if key is None:
        return GONE
    state = key.state(now)
    if state != "active":
        return REVOKED if state == "revoked" else EXPIRED
    if not is_taken(key, proof.fingerprint, now):
        return REPLACED
    return ENDED if proof.session in ended or now > proof.session_until else None


def watched(expel: Expel) -> AbstractContextManager[None]:
    """See `Rights.watched`; does nothing in an application without access control."""
    found = of(current_app)
    return found.watched(expel) if found else nullcontext()


def of(app: Flask) -> Rights | None:
    """Return the rights of an application; ``None`` of one without access control."""
    access: Any = app.extensions.get("access")
    return access.rights if access else None


def current() -> Proof | None:
    """Return what this request was let in by; ``None`` where there is nothing that could end."""
    found: Proof | None = g.get("proof") if has_app_context() else None
    return found
