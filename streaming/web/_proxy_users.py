"""Who asks, as a proxy in front says: believed only from the proxy's own address."""

import hashlib
import ipaddress

from flask import Request

from streaming._access_settings import UNIX, networks_of
from streaming.errors import NotAuthenticated
from streaming.principals import Principal
from streaming.settings import Settings

MAX_NAME_CHARS = 256


class ProxyUsers:
    def __init__(self, settings: Settings) -> None:
        self._header = settings.auth_proxy_header
        self._networks = networks_of(settings.auth_proxy_addresses)
        self._unix = UNIX in settings.auth_proxy_addresses

    def authenticate(self, request: Request) -> Principal | None:
        """Return the user whom the proxy names. Raises `NotAuthenticated` for anybody else's word."""
        name = request.headers.get(self._header, "").strip()
        if not name:
            return None
        if not self._is_proxy(peer_of(request)):
            raise NotAuthenticated(f"{self._header}: only the proxy may say who asks", code="not_the_proxy")
        # A server joins what came twice with a comma: one of the two may be the client's own.
        if "," in name or len(name) > MAX_NAME_CHARS or not name.isprintable():
            raise NotAuthenticated(f"{self._header}: one name, without a comma", code="invalid_user")
        # An id is written in many places, where a name may hold what they do not bear.
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        return Principal(f"user_{digest}", "user", frozenset({"run"}), name)

    def _is_proxy(self, peer: str) -> bool:
        if not peer:
            return self._unix
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._networks)


def peer_of(request: Request) -> str:
    """Return the address that the connection itself comes from, whatever headers say; "" on a unix socket."""
    before = request.environ.get("werkzeug.proxy_fix.orig", request.environ)
    found: str = before.get("REMOTE_ADDR") or ""
    return found
