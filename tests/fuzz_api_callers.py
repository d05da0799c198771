"""Who asks the service that is fuzzed: anybody where it is open, a key, the page's session, or nobody."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from tests.live.keyed import KEYS, bearer, keys_command, url_of
from tests.live.service import Service

CALLERS = ("open", "key", "session", "nobody")
ALL_SCOPES = "run,read,metrics,admin"
ASK_SECONDS = 20.0


class Caller:
    """One of `CALLERS`: its connection to the service, and one of who may make what it asks for."""

    def __init__(self, name: str, url: str, key: str = "") -> None:
        self.name = name
        self.url = url
        self.key = key
        self.asking = requests.Session()
        self.making = requests.Session()
        self.making.headers.update(bearer(key))
        self.token = ""
        """What a form of the session's page has to hold."""
        if name == "key":
            self.asking.headers.update(bearer(key))
        elif name == "session":
            self.asking.headers.update(self.page_headers)
        self.renew()

    @property
    def is_let_in(self) -> bool:
        return self.name != "nobody"

    @property
    def page_headers(self) -> dict[str, str]:
        """Return what a browser adds to what a page of the service sends."""
        return {"Origin": self.url, "Sec-Fetch-Site": "same-origin"}

    def renew(self, after: str = "") -> None:
        """Sign in, where this is a session that was ended; ``after`` is the address that was asked last."""
        if after == "/sign-in":
            self.asking.cookies.clear()  # it may be somebody's now
        if self.name != "session" or self.asking.cookies:
            return
        asked = {"key": self.key}
        head = {"Accept": "application/json"}
        answer = self.asking.post(f"{self.url}/sign-in", data=asked, headers=head, timeout=ASK_SECONDS)
        answer.raise_for_status()
        assert self.asking.cookies, "a sign-in gives a cookie"
        self.token = answer.json()["csrf"]


@contextmanager
def demo_service(directory: Path, who: str = "open") -> Iterator[Service]:
    """Run a service that answers at once, keeps nothing elsewhere and lets nobody wait for long."""
    keyed: dict[str, str | None] = {}
    if who != "open":
        keyed = dict(KEYS)
        if who != "nobody":
            keyed["SIGN_IN_FAILURES_PER_MINUTE"] = "1000000"  # or soon nobody could sign in any more
    service = Service(
        directory,
        "",
        environment={
            "OPENAI_API_KEY": None,
            "OPENAI_BASE_URL": None,
            "MODEL": None,
            "RUNNABLES": None,
            "CHECKPOINTS_URL": f"sqlite:///{directory / 'checkpoints.db'}",
            "SESSIONS_PATH": str(directory / "sessions.db"),
            "DEMO_TOKENS_PER_SECOND": "0",
            "MAX_WAIT_SECONDS": "0.1",
            "STREAM_TIMEOUT_SECONDS": "10",
            "DISCONNECT_GRACE_SECONDS": "1",
            **keyed,
        },
    )
    try:
        yield service
    finally:
        service.stop()


def make_key(directory: Path) -> str:
    """Return a key that may all, of the service that runs there."""
    return keys_command(url_of(directory), "create", "--scopes", ALL_SCOPES)
