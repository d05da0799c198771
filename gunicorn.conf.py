"""How gunicorn runs the service. Its command line wins over what is set here."""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
import resource  # noqa: E402

bind = f"0.0.0.0:{os.environ.get('PORT') or 8000}"
workers = int(os.environ.get("WEB_CONCURRENCY") or 1)
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
