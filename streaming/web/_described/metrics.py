"""``/metrics``."""

from streaming.openapi import Answer, Operation
from streaming.web._described import _parts as parts

OPERATIONS = (
    Operation(
        "GET",
        "/metrics",
        "getMetrics",
        "Operation",
        "What all workers of this server count, for Prometheus",
        "In Prometheus' text format or OpenMetrics, as `Accept` says. `METRICS_TOKEN` opens it too.",
        answers={
            200: Answer(
                "The metrics.",
                {"text/plain": parts.TEXT, "application/openmetrics-text": parts.TEXT},
            )
        },
        errors=(404,),
        access="metrics",
    ),
)
