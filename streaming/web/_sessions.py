"""Who a browser is, by a signed cookie: signed in with a key, or a visitor of a public page.

A session's cookie names the key and holds a fingerprint of its hash, never the
key. The key is looked up again at each request, so a session ends with it: once
it is revoked, has expired, or is another after it was rotated.

A request that is believed for its cookie has to show that our own page sent it
(`_csrf`); that is checked here, where it is believed, for every address at once.
"""

import functools
import hashlib
import secrets
import time
from collections.abc import Callable
from typing import Annotated

import msgspec
from flask import Flask, Request, Response, g
from itsdangerous import BadSignature, Signer, URLSafeTimedSerializer
from limits import RateLimitItemPerHour
from limits.storage import Storage
from msgspec import Meta, Struct

from streaming import keyring
from streaming.errors import PermissionDenied
from streaming.keyring import Keyring
from streaming.limits import Counters
from streaming.principals import Principal
from streaming.sessions import Kept, SessionStore
from streaming.settings import Settings
from streaming.web import _cookies, _csrf
from streaming.web._access import Access
from streaming.web._addresses import Attempts
from streaming.web._rights import Proof

SESSION = "sluice"
VISITOR = "sluice-visitor"
VISITOR_SECONDS = 90 * 86_400
"""How long a visitor who does not come back is remembered."""
RENEWED_SECONDS = 300.0
"""How old a cookie may be before it is replaced by a newer one."""
KEPT_SECONDS = 2.0
"""How long after it was ended on one worker a session may go on at another."""
VISITORS_PAGES = frozenset({"page", "streams", "threads", "feed"})
"""The blueprints a visitor's cookie is believed in: what the page asks for."""
EVERYBODY = 50
"""How many times what one address may do, all may do together."""


class Session(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a cookie says."""

    id: str
    begun: Annotated[int, Meta(ge=0, lt=2**53)]
    """Seconds since 1970."""
    key: str = ""
    """The id of the key that it was begun with; "" for a visitor."""
    fingerprint: str = ""


class Sessions:
    """The sessions of one service. Belongs to the process that made it."""

    def __init__(
        self, store: SessionStore, keys: Keyring, settings: Settings, windows: Callable[[], Storage]
    ) -> None:
        """``windows`` returns where new visitors are counted."""
        self._store = store
        self._keys = keys
        self._settings = settings
        self._kept: Kept | None = None
        self._read_at = 0.0
        hourly = RateLimitItemPerHour(settings.visitors_per_hour)
        self._newcomers = Attempts(
            "new visitors",
            hourly,
            RateLimitItemPerHour(settings.visitors_per_hour * EVERYBODY),
            windows,
        )

    # Who it is

    def authenticate(self, request: Request) -> Principal | None:
        """Return whose cookie this request has; None without a valid one.

        Raises `InvalidRequest` where it changes something, and was not sent by our page.
        """
        found = self._signed_in(request) or self._visitor(request)
        if found is None:
            return None
        session, principal = found
        if _csrf.changes(request):
            _csrf.check_same_origin(request)
        if _csrf.is_form(request):
            # Before anything of the form is read: a long question is more than Flask takes by itself.
            request.max_form_memory_size = self._settings.max_body_bytes
            if not self._is_token(request.form.get(_csrf.FIELD, ""), session):
                raise _csrf.refuse_form()
        g.session = session
        if session.key:
            until = session.begun + self._settings.session_seconds
            g.proof = Proof(session.key, session.fingerprint, session.id, until)
        return principal

    def _signed_in(self, request: Request) -> tuple[Session, Principal] | None:
        if not self._settings.signs_in:
            return None
        read = self._read(request, SESSION, self._settings.session_idle_seconds)
        if read is None:
            return None
        session, age_seconds = read
        if time.time() > session.begun + self._settings.session_seconds or session.id in self._known().ended:
            return None
        principal = self._principal_of(session)
        if principal is None:
            return None
        if age_seconds > min(RENEWED_SECONDS, self._settings.session_idle_seconds / 10):
            self._give(SESSION, session)
        return session, principal

    def _principal_of(self, session: Session) -> Principal | None:
        """Return whose the session's key is, if it is still the key that the session was begun with."""
        key = self._keys.find(session.key)
        if key is None:
            return None
        if not keyring.is_taken(key, session.fingerprint, time.time()):
            return None
        return self._keys.principal_of(key)

    def _visitor(self, request: Request) -> tuple[Session, Principal] | None:
        if self._settings.page_access != "public" or request.blueprint not in VISITORS_PAGES:
            return None
        opens_page = request.endpoint == "page.show"
        if _cookies.read(request, SESSION):
            if not opens_page:
                return None  # it was sent by the page of a session that is over: not to become somebody else
            self._give(SESSION, None)
        read = self._read(request, VISITOR, VISITOR_SECONDS)
        if read is not None:
            session, age_seconds = read
            if age_seconds > 86_400:
                self._give(VISITOR, session)
        elif opens_page and _cookies.name_of(request, VISITOR):
            # Only the page makes one, and not too many: who keeps no cookies is somebody new each time.
            self._newcomers.check(request)
            self._newcomers.count(request)
            session = Session(secrets.token_hex(16), int(time.time()))
            self._give(VISITOR, session)
        else:
            return None
        return session, Principal(f"visitor_{session.id}", "visitor", frozenset({"run"}), "a visitor")

    # Begin and end

    def begin(self, request: Request, text: str) -> Principal:
        """Begin a session with a key; its cookie goes with this request's answer.

        Its id is new, and what the browser had before is over. Raises `NotAuthenticated`, and
        `PermissionDenied` for a key that may do nothing here.
        """
        key = self._keys.check(text)
        principal = self._keys.principal_of(key)
        if not principal.may("read"):
            raise PermissionDenied("this key has none of the scopes that the page needs: run, or read")
        if before := self._read(request, SESSION, self._settings.session_idle_seconds):
            self._forget(before[0])
        hashed = keyring.fingerprint_of(keyring.hash_of(text))
        session = Session(secrets.token_hex(16), int(time.time()), key.id, hashed)
        self._give(SESSION, session)
        g.session = session
        return principal

    def end(self, request: Request) -> None:
        """End this browser's session, also for whoever has a copy of its cookie."""
        session: Session | None = g.pop("session", None)
        self._give(SESSION, None)
        if session is not None and session.key:
            self._forget(session)

    def _forget(self, session: Session) -> None:
        self._store.end(session.id, session.begun + self._settings.session_seconds)
        self._kept = None

    def set_cookies(self, request: Request, response: Response) -> None:
        """Put what this request gave, renewed or took away on its answer."""
        given: dict[str, str] = g.pop("cookies_given", {})
        for base, text in given.items():
            kept = VISITOR_SECONDS if base == VISITOR else int(self._settings.session_idle_seconds)
            _cookies.write(response, request, base, text, kept)

    def _give(self, base: str, session: Session | None) -> None:
        # Signed now: by the time of the answer, after a long poll, the store may not be there.
        text = str(self._serializer(base).dumps(msgspec.to_builtins(session))) if session else ""
        if "cookies_given" not in g:
            g.cookies_given = {}
        g.cookies_given[base] = text

    # Tokens of forms

    def token(self) -> str:
        """Return what a form of this session has to hold; "" where there is no session."""
        session: Session | None = g.get("session")
        return self._token_signer().get_signature(_about(session)).decode() if session else ""

    def _is_token(self, given: str, session: Session) -> bool:
        return given.isascii() and self._token_signer().verify_signature(_about(session), given)

    # Signing

    def _read(self, request: Request, base: str, max_age_seconds: float) -> tuple[Session, float] | None:
        text = _cookies.read(request, base)
        if not text:
            return None
        try:
            found, signed = self._serializer(base).loads(text, int(max_age_seconds), return_timestamp=True)
            return msgspec.convert(found, Session), time.time() - signed.timestamp()
        except (BadSignature, msgspec.ValidationError, UnicodeError):
            return None

    def _serializer(self, base: str) -> URLSafeTimedSerializer:
        return _serializer(self._secrets(), f"{base} cookie")

    def _token_signer(self) -> Signer:
        return _signer(self._secrets(), "form token")

    def _secrets(self) -> tuple[bytes, ...]:
        """Return what is signed with, the newest last, as the library wants it."""
        given = tuple(each.encode() for each in reversed(self._settings.secret_key))
        return given or (self._known().secret,)

    def ended(self) -> frozenset[str]:
        """Return the sessions that were ended early, as it is now. Blocks; raises `StoreUnavailable`."""
        self._kept = kept = self._store.read()
        self._read_at = time.monotonic()
        return kept.ended

    def _known(self) -> Kept:
        now = time.monotonic()
        if self._kept is None or now > self._read_at + KEPT_SECONDS:
            self._kept = self._store.read()
            self._read_at = now
        return self._kept


def _about(session: Session) -> str:
    return f"{session.id} {session.key}"


@functools.lru_cache(8)
def _serializer(keys: tuple[bytes, ...], salt: str) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(
        list(keys), salt, signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256}
    )


@functools.lru_cache(8)
def _signer(keys: tuple[bytes, ...], salt: str) -> Signer:
    return Signer(list(keys), salt, key_derivation="hmac", digest_method=hashlib.sha256)


def register(app: Flask, settings: Settings, store: SessionStore, access: Access, counters: Counters) -> None:
    """Believe cookies too, where the page is for who signs in or for visitors."""
    if settings.page_access in ("private", "public"):
        sessions = Sessions(store, access.keys, settings, lambda: counters.windows)
        access.authenticators.append(sessions.authenticate)
        access.rights.ended_sessions = sessions.ended
        app.extensions["sessions"] = sessions
