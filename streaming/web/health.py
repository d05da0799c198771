"""``/healthz``: this process answers. ``/readyz``: it can take work."""

from flask import Blueprint, Response

from streaming.settings import Settings
from streaming.streams import Streams
from streaming.web._errors import json_response


def create(streams: Streams, settings: Settings) -> Blueprint:
    blueprint = Blueprint("health", __name__)

    @blueprint.get("/healthz")
    def alive() -> Response:
        return json_response({"status": "ok"})

    @blueprint.get("/readyz")
    def ready() -> Response:
        streams.check_ready()
        return json_response({"status": "ok", "running": streams.running})

    return blueprint
