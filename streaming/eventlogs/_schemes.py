"""Which store a URL names."""

from streaming import plugins
from streaming.errors import SettingsError


def scheme_of(url: str) -> str:
    """Return the plug-in's name for ``EVENTLOG_URL``. Raises `SettingsError`."""
    scheme = url.partition(":")[0]
    scheme = {"rediss": "redis"}.get(scheme, scheme)  # the same store, over TLS
    if scheme not in plugins.names("eventlogs"):
        known = ", ".join(f"{name}://" for name in plugins.names("eventlogs"))
        raise SettingsError(f"EVENTLOG_URL: {scheme!r} is not one of {known}")
    return scheme
