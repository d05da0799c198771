"""A service that lets in who has a key, and the keys of several principals."""

import contextlib
import http.client
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.live.service import REPOSITORY, REQUEST_SECONDS, Answer, Service

DEMO: dict[str, str | None] = {"OPENAI_API_KEY": None, "OPENAI_BASE_URL": None, "MODEL": None}
NO_LIMITS = ("RUNNING_PER_PRINCIPAL", "CREATES_PER_MINUTE", "POLLS_PER_SECOND")
KEYS: dict[str, str | None] = {
    "AUTH": "keys",
    "DEMO_TOKENS_PER_SECOND": "0",
    # Tests ask more than people do; those of limits give their keys some.
    **dict.fromkeys(NO_LIMITS, "0"),
}

_MAKE = """
from gevent import monkey; monkey.patch_all()
import json, sys, time
from streaming import plugins
from streaming.keyring import Keyring

url = sys.argv[1]
scheme = url.partition(":")[0]
log = plugins.create("eventlogs", scheme, url)
keyring = Keyring(plugins.create("keys", scheme, log))
owner = keyring.issue(["run"], "owner")
made = {
    "owner": owner,
    "other": keyring.issue(["run"], "other"),
    "reader": keyring.issue(["read"], "reader", owner=owner.key.principal_id),
    "metrics": keyring.issue(["metrics"], "metrics"),
    "admin": keyring.issue(["admin"], "admin"),
    "expired": keyring.issue(["run"], "expired", expires=time.time() - 1, owner=owner.key.principal_id),
    "revoked": keyring.issue(["run"], "revoked", owner=owner.key.principal_id),
}
keyring.revoke(made["revoked"].key.id)
print(json.dumps({name: each.text for name, each in made.items()}))
keyring.close()
log.close()
"""
_ROUTES = """
from gevent import monkey; monkey.patch_all()
import json
from app import create_app
from streaming.settings import Settings
from streaming.web._access import NEEDS

app = create_app(Settings(eventlog_url="memory://"))
methods = {}
for rule in app.url_map.iter_rules():
    methods.setdefault(rule.endpoint, set()).update(rule.methods - {"HEAD", "OPTIONS"})
print(json.dumps({"methods": {name: sorted(each) for name, each in methods.items()}, "needs": NEEDS}))
app.extensions["streams"].drain(0, 0)
app.extensions["streams"].close()
"""


def make_keys(eventlog_url: str) -> dict[str, str]:
    """Return the keys of several principals by their names, made in a process of its own."""
    return dict(_run(_MAKE, eventlog_url))


def routes() -> dict[str, Any]:
    """Return ``methods`` by endpoint, and ``needs``, as the application has them."""
    return dict(_run(_ROUTES))


def keys_command(eventlog_url: str, *arguments: str) -> str:
    """Return what ``python -m streaming keys`` prints to stdout."""
    environ = os.environ | {"EVENTLOG_URL": eventlog_url, "RUNNABLES": "none"}
    return subprocess.run(
        [sys.executable, "-m", "streaming", "keys", *arguments],
        cwd=REPOSITORY,
        env=environ,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout.strip()


def _run(program: str, *arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def bearer(key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def url_of(directory: Path) -> str:
    """Return the URL of the log that `Service` makes in a directory."""
    return f"sqlite:///{(directory / 'log.db').absolute()}"


def send(
    service: Service,
    method: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    body: object = None,
    form: Mapping[str, str] | None = None,
) -> Answer:
    """Return the answer to a request with a JSON body, or with a form."""
    if form is None:
        return service.request(method, path, body, headers)
    sent = {"Content-Type": "application/x-www-form-urlencoded", **(headers or {})}
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=REQUEST_SECONDS)
    with contextlib.closing(connection):
        connection.request(method, path, urlencode(form), sent)
        answer = connection.getresponse()
        fields = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, fields, answer.read())
