"""``/metrics``: what all workers of this server count, for Prometheus."""

from flask import Blueprint, Response, current_app, request

from streaming.errors import NotFound
from streaming.metrics import Metrics
from streaming.settings import Settings
from streaming.streams import Streams
from streaming.web._measuring import may_see_metrics


def create(streams: Streams, settings: Settings) -> Blueprint:
    blueprint = Blueprint("metrics", __name__)

    @blueprint.get("/metrics")
    def show() -> Response:
        metrics: Metrics | None = current_app.extensions.get("metrics")
        if metrics is None or not may_see_metrics(settings):
            # As if there were none: who may not see it need not know.
            raise NotFound("there is nothing at this address")
        text, media_type = metrics.text(request.headers.get("Accept", ""))
        return Response(text, content_type=media_type, headers={"Cache-Control": "no-store"})

    return blueprint
