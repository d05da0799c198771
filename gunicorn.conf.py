"""How gunicorn runs the service. Its command line wins over what is set here."""

from gevent import monkey

monkey.patch_all()

import gc  # noqa: E402
import importlib  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
import resource  # noqa: E402
import sys  # noqa: E402

# Libraries only: imported here, before the workers are forked, they cost their second once, and not
# again whenever a worker has to be replaced.
import flask  # noqa: E402, F401
import openai.resources.chat  # noqa: E402, F401

from streaming._access_settings import is_loopback  # noqa: E402
from streaming.errors import SettingsError  # noqa: E402
from streaming.metrics import _directory as _metrics  # noqa: E402
from streaming.runnables._ahead import libraries_of  # noqa: E402
from streaming.settings import Settings  # noqa: E402

try:
    _settings = Settings.from_environ(os.environ)
except SettingsError as error:
    sys.exit(f"Sluice cannot start. {error}")

_libraries = libraries_of(_settings.registrations)
if _settings.chatkit_ahead:
    _libraries.append("chatkit.server")
for _name in _libraries:
    try:
        importlib.import_module(_name)
    except Exception:  # a library that is broken, or not there, is the worker's to tell
        logging.getLogger(__name__).warning("%s cannot be imported", _name, exc_info=True)

_host = f"[{_settings.bind_host}]" if ":" in _settings.bind_host else _settings.bind_host
bind = f"{_host}:{_settings.port}"
workers = _settings.web_concurrency
worker_class = "streaming.gevent_worker.LeanGeventWorker"
# Readers take four of five: the rest is for cancelling, asking how a stream is, and health.
worker_connections = -(-_settings.max_readers * 5 // 4)
backlog = 4096
keepalive = 75
# Watches the worker's loop, not a request: long streams are safe.
timeout = 30
# The application ends itself before: at this time a worker is killed, and none of its code runs.
graceful_timeout = int(_settings.drain_seconds) + 7
preload_app = False
control_socket_disable = True
# What proxies write is read where PROXY_HOPS says how many there are, and nowhere else.
secure_scheme_headers = {}
accesslog = None
loglevel = "warning"

# Where the workers share what they count. A server that replaces this one (SIGUSR2) makes its own.
_maker = os.environ.get("SLUICE_METRICS_OF", "")
if not os.environ.get("METRICS_DIRECTORY") or (_maker and _maker != str(os.getpid())):
    os.environ["METRICS_DIRECTORY"] = _metrics.make_directory()
    os.environ["SLUICE_METRICS_OF"] = str(os.getpid())

_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (_hard, _hard))


def _check_access(addresses):
    """Do not start where others could come in, and nobody said that they may."""
    if _settings.auth_is_chosen:
        return
    for address in addresses:
        if isinstance(address, tuple) and not is_loopback(address[0]):
            sys.exit(
                f"Sluice cannot start. AUTH is not set, and {address[0]}:{address[1]} can be reached from"
                " other machines. Set AUTH=keys, and make a key with `python -m streaming keys create`; or"
                " AUTH=proxy behind a proxy that signs people in; or AUTH=open to let everybody in, who then"
                f" ask at your expense. Or listen on this machine alone: gunicorn -b 127.0.0.1:{address[1]}"
                " wsgi:app"
            )


def on_starting(server):
    """Listen for the metrics too, where they have their own port, whatever ``--bind`` says."""
    _check_access(server.cfg.address)
    _metrics.clean(os.environ["METRICS_DIRECTORY"])
    if _settings.metrics_address:
        host, port = _settings.metrics_address
        metrics_bind = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        server.cfg.set("bind", [*server.cfg.settings["bind"].get(), metrics_bind])


def child_exit(server, worker):
    _metrics.fold_dead(os.environ["METRICS_DIRECTORY"])


def on_exit(server):
    if os.environ.get("SLUICE_METRICS_OF") == str(os.getpid()):
        _metrics.remove_directory(os.environ["METRICS_DIRECTORY"])


def post_worker_init(worker):
    from streaming.gevent_worker import Patience
    from streaming.worker import Ending

    worker.patience = Patience(
        _settings.head_timeout_seconds, _settings.body_timeout_seconds, _settings.body_bytes_per_second
    )
    worker.ending = Ending(worker, worker.wsgi.extensions["streams"], _settings.drain_seconds)
    # What was imported and composed stays for ever: each full collection would look through all of it,
    # for a tenth of a second in which nobody's text goes on.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


def worker_exit(server, worker):
    if hasattr(worker, "ending"):
        worker.ending.finish()


_ACCESS = {
    "open": "everybody" if _settings.auth_is_chosen else "everybody on this machine",
    "keys": "with a key (python -m streaming keys create)",
    "proxy": f"whom the proxy names in {_settings.auth_proxy_header}, or with a key",
}


def when_ready(server):
    """Say in a few lines what was started."""
    # Again: a socket that was handed over, as systemd does, is in no setting.
    _check_access([each.sock.getsockname() for each in server.LISTENERS])
    urls = [a if isinstance(a, str) else f"http://{a[0]}:{a[1]}" for a in server.address]
    metrics_url = urls.pop() + "/metrics" if _settings.metrics_address else ""
    model, upstream = _settings.default_model, _settings.upstreams_shown
    if _settings.is_demo:
        model = "demo model: no AI, no key (set OPENAI_API_KEY for a real one)"
    lines = {
        "Sluice": ", ".join(urls).replace("0.0.0.0", "localhost"),
        "access": _ACCESS[_settings.auth],
        "model": model,
        "upstream": upstream,
        "store": _settings.eventlog_url_shown,
        "workers": server.num_workers,
    }
    if metrics_url:
        lines["metrics"] = metrics_url
    for name, value in lines.items():
        print(f"{name:>9}  {value}", flush=True)
