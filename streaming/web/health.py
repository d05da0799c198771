"""``/healthz``: this process answers, and in time. ``/readyz``: it can take work, or says by name why not.

A platform restarts what is not healthy, and sends no more work to what is not
ready: so the store's state is the second's business only.
"""

from flask import Blueprint, Response, current_app

from streaming.readiness import LAG_WITHIN_SECONDS, check_loop
from streaming.settings import Settings
from streaming.streams import Streams
from streaming.web._errors import json_response


def create(streams: Streams, settings: Settings) -> Blueprint:
    blueprint = Blueprint("health", __name__)

    @blueprint.get("/healthz")
    def alive() -> Response:
        check_lag(settings)
        return json_response({"status": "ok"})

    @blueprint.get("/readyz")
    def ready() -> Response:
        check_lag(settings)
        streams.check_ready()
        return json_response({"status": "ok", "running": streams.running})

    return blueprint


def check_lag(settings: Settings) -> None:
    metrics = current_app.extensions.get("metrics")
    if metrics is not None:
        check_loop(metrics.loop.worst_seconds(LAG_WITHIN_SECONDS), settings.health_lag_seconds)
