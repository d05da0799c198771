"""What the settings of access are checked for."""

import ipaddress
import re
from collections.abc import Sequence
from typing import Protocol
from urllib.parse import urlsplit

from streaming.errors import SettingsError

UNIX = "unix"
"""How a client on a unix socket is called, which has no address."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Access(Protocol):
    @property
    def auth(self) -> str: ...
    @property
    def auth_proxy_header(self) -> str: ...
    @property
    def auth_proxy_addresses(self) -> Sequence[str]: ...
    @property
    def cors_origins(self) -> Sequence[str]: ...
    @property
    def bind_host(self) -> str: ...


def check_access(settings: Access) -> None:
    """Raise `SettingsError` for what cannot be used."""
    networks_of(settings.auth_proxy_addresses)
    if settings.auth == "proxy" and not settings.auth_proxy_addresses:
        raise SettingsError("AUTH_PROXY_ADDRESSES: say whose header is to be believed, such as 127.0.0.1")
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", settings.auth_proxy_header):
        raise SettingsError(f"AUTH_PROXY_HEADER: {settings.auth_proxy_header!r} is not the name of a header")
    for origin in settings.cors_origins:
        if not _is_origin(origin):
            raise SettingsError(f"CORS_ORIGINS: {origin!r} is not an origin, such as https://app.example.com")
    if not _is_host(settings.bind_host):
        raise SettingsError(f"BIND_HOST: {settings.bind_host!r} is not an address")


def networks_of(addresses: Sequence[str]) -> list[Network]:
    """Return the addresses that are no unix socket, as networks. Raises `SettingsError`."""
    found = []
    for address in addresses:
        if address == UNIX:
            continue
        try:
            found.append(ipaddress.ip_network(address))
        except ValueError:
            raise SettingsError(
                f"AUTH_PROXY_ADDRESSES: {address!r} is not an address such as 10.0.0.1, a network such as"
                f" 10.0.0.0/24, or {UNIX}"
            ) from None
    return found


def is_loopback(host: str) -> bool:
    """Say whether only this machine can reach what listens on ``host``.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, True, False)
    """
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def _is_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return bool(re.fullmatch(r"[A-Za-z0-9.-]{1,253}", host))
    return True


def _is_origin(origin: str) -> bool:
    try:
        parts = urlsplit(origin)
        _ = parts.port
    except ValueError:
        return False
    return (
        parts.scheme in ("http", "https")
        and bool(parts.hostname)
        and "*" not in origin
        and origin == f"{parts.scheme}://{parts.netloc}".lower()
        and "@" not in parts.netloc
    )
