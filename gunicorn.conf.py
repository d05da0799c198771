"""How gunicorn runs the service. Its command line wins over what is set here."""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
import resource  # noqa: E402
import sys  # noqa: E402

from streaming.errors import SettingsError  # noqa: E402
from streaming.settings import Settings  # noqa: E402

try:
    _settings = Settings.from_environ(os.environ)
except SettingsError as error:
    sys.exit(f"Sluice cannot start. {error}")

bind = f"0.0.0.0:{_settings.port}"
workers = _settings.web_concurrency
worker_class = "gevent"
worker_connections = 10_000
backlog = 4096
keepalive = 75
# Watches the worker's loop, not a request: long streams are safe.
timeout = 30
graceful_timeout = 25
preload_app = False
control_socket_disable = True
accesslog = None
loglevel = "warning"

_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (_hard, _hard))


def when_ready(server):
    """Say in a few lines what was started."""
    where = [address if isinstance(address, str) else f"{address[0]}:{address[1]}" for address in server.address]
    urls = ", ".join(f"http://{name.replace('0.0.0.0', 'localhost')}" for name in where)
    model = "demo model: no AI, no key (set OPENAI_API_KEY for a real one)"
    upstream = "in this process"
    if not _settings.is_demo:
        model = _settings.default_model
        upstream = _settings.openai_base_url or "https://api.openai.com/v1"
    for name, value in {
        "Sluice": urls,
        "model": model,
        "upstream": upstream,
        "store": _settings.eventlog_url_shown,
        "workers": server.num_workers,
    }.items():
        print(f"{name:>9}  {value}", flush=True)
