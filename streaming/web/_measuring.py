"""Count every request, and keep the port of the metrics apart from the service's own."""

import hmac
import logging
import time
from typing import Any

from flask import Flask, Response, g, request

from streaming import traces
from streaming.errors import NotFound
from streaming.gevent_worker import LeanGeventWorker
from streaming.metrics import Metrics
from streaming.settings import Settings
from streaming.streams import Streams
from streaming.web._errors import request_id
from streaming.web._principals import current

logger = logging.getLogger(__name__)

OPERATIONS = frozenset({"/metrics", "/healthz", "/readyz"})
"""What the port of the metrics answers, and nothing else."""
SCOPES = frozenset({"metrics", "admin"})


def register(app: Flask, metrics: Metrics, streams: Streams, settings: Settings) -> None:
    app.extensions["metrics"] = metrics
    metrics.watch("sluice_streams_running", lambda: streams.running)
    metrics.watch("sluice_readers", lambda: streams.reading)
    metrics.watch("sluice_questions_open", lambda: len(streams.questions))
    metrics.watch("sluice_workers_draining", lambda: float(streams.draining))
    metrics.watch("sluice_connections_open", lambda: LeanGeventWorker.connections)
    own_port = settings.metrics_address[1] if settings.metrics_address else 0
    level = logging.INFO if settings.access_log else logging.DEBUG

    @app.before_request
    def begin() -> None:
        g.began = time.monotonic()
        headers = request.headers
        traces.enter(
            traces.begin(headers.getlist("traceparent"), headers.getlist("tracestate"), request_id())
        )
        if is_on_metrics_port(request.environ, own_port) and request.path not in OPERATIONS:
            raise NotFound("there is nothing at this address")

    @app.after_request
    def count(response: Response) -> Response:
        route = request.url_rule.rule if request.url_rule else "none"
        metrics.answered(request.method, route, response.status_code)
        if logger.isEnabledFor(level):
            said = {
                "method": request.method,
                "route": route,
                "status": response.status_code,
                "milliseconds": round((time.monotonic() - g.get("began", time.monotonic())) * 1000, 1),
                "request_id": request_id(),
                "trace_id": trace.trace_id if (trace := traces.current()) else None,
            }
            logger.log(level, "request answered", extra=said)
        return response


def is_on_metrics_port(environ: dict[str, Any], port: int) -> bool:
    """Say whether a request came in by the port that is for metrics, whatever its headers say."""
    sock = environ.get("gunicorn.socket")
    if not port or sock is None:
        return False
    try:
        name = sock.getsockname()
    except OSError:
        return False
    return isinstance(name, tuple) and name[1] == port


def may_see_metrics(settings: Settings) -> bool:
    """Say whether whoever makes this request is shown the metrics."""
    if settings.metrics_address:
        # Whoever reaches that port may.
        return is_on_metrics_port(request.environ, settings.metrics_address[1])
    if settings.metrics_token:
        token = request.authorization.token if request.authorization else None
        expected = settings.metrics_token.encode()
        if token and hmac.compare_digest(token.encode(errors="replace"), expected):
            return True
        return current().kind != "open" and bool(SCOPES & current().scopes)
    return bool(SCOPES & current().scopes)
