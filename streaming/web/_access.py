"""Who asks, and whether they may: before any view, for every address.

What may be asked without saying who one is, and what needs which scope, is one
table. An endpoint that is not in it needs ``admin``: a new route that was
forgotten here is shut, and a test says so.
"""

import logging
from collections.abc import Callable
from typing import Literal

from flask import Flask, Request, Response, g, request

from streaming._access_settings import is_loopback
from streaming.errors import NotAuthenticated, PermissionDenied, StreamingError
from streaming.keyring import Keyring, fingerprint_of, hash_of
from streaming.principals import NOBODY, OPEN, Principal, Scope
from streaming.settings import Settings
from streaming.web import _bodies, _measuring
from streaming.web._proxy_users import ProxyUsers, peer_of
from streaming.web._refused import RefusalLog, key_in
from streaming.web._rights import Proof, Rights

logger = logging.getLogger(__name__)

Need = Scope | Literal["public", "optional"]
PUBLIC: Literal["public"] = "public"
"""For everybody: nobody is asked who they are."""
OPTIONAL: Literal["optional"] = "optional"
"""For everybody: the view itself looks at who asks, who may be nobody."""

NEEDS: dict[str, Need] = {
    "assets.serve": PUBLIC,
    "static": PUBLIC,
    "health.alive": PUBLIC,
    "health.ready": PUBLIC,
    "openapi.show": PUBLIC,
    "openapi.docs": PUBLIC,
    "metrics.show": "metrics",  # or its own token: `_measuring.has_pass`
    "usage.show": "read",
    "doctor.page": "read",
    "doctor.ticks": "read",
    "doctor.judge": "read",
    "doctor.of_service": "admin",
    "sign_in.form": PUBLIC,
    "sign_in.sign_in": PUBLIC,
    "sign_in.sign_out": OPTIONAL,  # also of a session that has just ended
    "page.show": "read",
    "page.ask": "run",
    "page.stop": "run",
    "page.rename": "run",
    "page.delete": "run",
    "stream.ask": "run",
    "streams.start": "run",
    "streams.follow": "read",
    "streams.cancel": "run",
    "streams.erase": "run",
    "feed.feed": "read",
    "threads.listed": "read",
    "threads.make": "run",
    "threads.show": "read",
    "threads.change": "run",
    "threads.delete": "run",
    "ws.talk": "run",
    "ws.explain": "run",
    "v1_chat.complete": "run",
    "v1_embeddings.embed": "run",
    "v1_models.list_all": "read",
    "v1_models.show": "read",
    "v1_responses.respond": "run",
    "v1_responses.show": "read",
    "v1_responses.list_input": "read",
    "v1_responses.cancel": "run",
    "v1_responses.erase": "run",
    "runnables.list_all": "read",
    "runnables.show": "read",
    "runnables.show_schema": "read",
    "runnables.invoke": "run",
    "runnables.batch": "run",
    "runnables.stream": "run",
    "runnables.stream_events": "run",
    "chatkit.answer": "run",
    "chatkit.open_session": "run",
    "chatkit.renew_session": "run",
}

Authenticator = Callable[[Request], Principal | None]
"""Returns who asks, or ``None`` where it cannot tell. Raises `NotAuthenticated` for what is not valid."""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
KEY_PREFIX = "sk-sluice-"


class Access:
    """Who is let in. Further ways to tell who asks are added to ``authenticators``."""

    def __init__(self, settings: Settings, keys: Keyring, rights: Rights, refused: RefusalLog) -> None:
        self.keys = keys
        self.rights = rights
        self.refused = refused
        self.authenticators: list[Authenticator] = [self._by_key]
        """Asked in this order, until one knows."""
        self.refusals: dict[str, Callable[[StreamingError], Response]] = {}
        """How a blueprint tells that it does not know, or does not let in, who asks; else as all errors."""
        self._settings = settings
        self._warned = False
        if settings.auth == "proxy":
            self.authenticators.append(ProxyUsers(settings).authenticate)

    def identify(self, request: Request) -> Principal | None:
        """Return who asks; ``None`` where nobody is known. Raises `NotAuthenticated`."""
        if self._settings.auth == "open":
            self._check_is_here(request)
            return OPEN
        for authenticate in self.authenticators:
            if principal := authenticate(request):
                return principal
        return None

    def admit(self, request: Request) -> None:
        """Note who asks. Raises `NotAuthenticated` and `PermissionDenied`."""
        g.principal = NOBODY
        if request.endpoint is None or request.method == "OPTIONS":
            return  # it is told what there is, and nothing of anybody
        need = NEEDS.get(request.endpoint, "admin")
        if request.method not in SAFE_METHODS:
            _bodies.check_origin(request)
        if need == PUBLIC or (request.endpoint == "metrics.show" and _measuring.has_pass(self._settings)):
            return
        try:
            principal = self.identify(request)
        except NotAuthenticated:
            if need != OPTIONAL:
                raise
            principal = None
        if need == OPTIONAL:
            g.principal = principal or NOBODY
            return
        if principal is None:
            raise NotAuthenticated("a key is needed: send Authorization: Bearer sk-sluice-…", code="no_key")
        g.principal = principal
        if not principal.may(need):
            raise PermissionDenied(f"this needs the scope {need}, which this key does not have")

    def _by_key(self, request: Request) -> Principal | None:
        text = key_in(request)
        if not text or (self._settings.auth == "proxy" and not text.startswith(KEY_PREFIX)):
            return None  # another one's is the proxy's business
        key = self.keys.check(text)
        g.proof = Proof(key.id, fingerprint_of(hash_of(text)))
        return self.keys.principal_of(key)

    def _check_is_here(self, request: Request) -> None:
        """Let in only who is on this machine, where nobody said that everybody may come.

        gunicorn does not start when it listens elsewhere; this is for other servers.
        """
        if self._settings.auth_is_chosen:
            return
        peer = peer_of(request)
        if peer and not is_loopback(peer):
            raise NotAuthenticated("AUTH is not set, so only this machine is let in", code="auth_not_set")
        if "X-Forwarded-For" in request.headers and not self._warned:
            self._warned = True
            logger.warning("requests come through a proxy, and AUTH is not set: everybody is let in")


def register(app: Flask, settings: Settings, keys: Keyring, rights: Rights, refused: RefusalLog) -> Access:
    """Admit every request before its view. What is added to the result counts from then on."""
    access = Access(settings, keys, rights, refused)
    app.extensions["access"] = access

    @app.before_request
    def admit() -> Response | None:
        try:
            access.admit(request)
        except StreamingError as error:
            if error.status in (401, 403):
                refused.note(request, error)
            refuse = access.refusals.get(request.blueprint or "")
            if refuse is None or not isinstance(error, NotAuthenticated | PermissionDenied):
                raise
            return refuse(error)
        return None

    return access
