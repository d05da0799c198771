"""Every metric of this service: its name, kind, labels and meaning."""

from typing import Literal, NamedTuple


class Metric(NamedTuple):
    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    """Of a histogram's buckets, in seconds."""
    over_workers: Literal["sum", "max"] = "sum"
    """What a gauge is over all workers."""


SHORT = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
WAITS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0)
RUNS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)

ALL = (
    # Streams
    Metric("sluice_streams_started_total", "counter", "Streams that began here.", ("source",)),
    Metric(
        "sluice_streams_ended_total",
        "counter",
        "Streams that ended, each once over all workers; also those of workers that died.",
        ("source", "state"),
    ),
    Metric("sluice_streams_taken_over_total", "counter", "Streams ended for a worker that was gone."),
    Metric("sluice_streams_running", "gauge", "Streams being produced now."),
    Metric("sluice_readers", "gauge", "Readers that follow a stream now."),
    Metric("sluice_questions_open", "gauge", "Questions besides streams that are open: models, embeddings."),
    Metric("sluice_stream_seconds", "histogram", "From a stream's start to its end.", ("source",), RUNS),
    Metric(
        "sluice_first_token_seconds",
        "histogram",
        "From a stream's start to its first token in the log.",
        ("model",),
        WAITS,
    ),
    Metric(
        "sluice_token_gap_seconds",
        "histogram",
        "Between two batches of a stream: the pauses that a reader sees.",
        (),
        SHORT,
    ),
    Metric("sluice_events_total", "counter", "Events committed to the log, the first and last left out."),
    Metric("sluice_event_bytes_total", "counter", "Bytes of those events."),
    Metric(
        "sluice_tokens_total",
        "counter",
        "Tokens of ended streams, in and out; by the upstream's count or this service's estimate.",
        ("direction", "model", "counted_by"),
    ),
    Metric("sluice_errors_total", "counter", "Streams that ended with an error, by its type.", ("type",)),
    Metric("sluice_upstream_retries_total", "counter", "Requests made again to the same upstream."),
    Metric("sluice_upstream_fallbacks_total", "counter", "Streams that went on with another model."),
    # The store
    Metric(
        "sluice_store_commit_seconds",
        "histogram",
        "From handing a batch to the store until it was committed.",
        ("store",),
        SHORT,
    ),
    Metric("sluice_store_writes_waiting", "gauge", "Writes, or commands, that the store has yet to take."),
    Metric("sluice_store_errors_total", "counter", "Writes that the store refused.", ("code",)),
    Metric(
        "sluice_store_fenced_total",
        "counter",
        "Streams that a worker had to let go because another one owned them.",
    ),
    Metric(
        "sluice_log_lag_seconds",
        "histogram",
        "From a commit being noticed to a reader having read it; a sample of at most ten a second.",
        (),
        SHORT,
    ),
    # The process
    Metric(
        "sluice_loop_lag_seconds",
        "histogram",
        "How late the event loop was, four times a second: what blocks it makes all streams wait.",
        (),
        SHORT,
    ),
    Metric(
        "sluice_loop_lag_worst_seconds",
        "gauge",
        "The latest that any worker's loop was in its last minute.",
        over_workers="max",
    ),
    Metric(
        "sluice_loop_silent_seconds",
        "gauge",
        "How long ago the most silent worker's loop last turned: grows while a worker is blocked.",
        over_workers="max",
    ),
    Metric("sluice_connections_open", "gauge", "Connections of clients."),
    Metric(
        "sluice_http_requests_total",
        "counter",
        "Requests answered, by the pattern of their address.",
        ("method", "route", "status"),
    ),
    Metric(
        "sluice_access_refused_total",
        "counter",
        "Requests, attempts to sign in and open connections that were refused or ended for who it was.",
        ("at", "why"),
    ),
    Metric("sluice_workers", "gauge", "Workers that live."),
    Metric("sluice_workers_draining", "gauge", "Workers that take no new streams and are about to end."),
    Metric("sluice_cpu_seconds_total", "counter", "Processor time of the workers."),
    Metric("sluice_resident_bytes", "gauge", "Memory of the workers."),
    Metric("sluice_open_descriptors", "gauge", "Files and sockets that the workers hold."),
    Metric(
        "sluice_build_info",
        "gauge",
        "Always 1; what runs is in the labels.",
        ("version", "python", "store"),
        over_workers="max",
    ),
)

BY_NAME = {metric.name: metric for metric in ALL}
GAUGES = frozenset(metric.name for metric in ALL if metric.kind == "gauge")

BEAT = "beat"
"""Not shown as it is: when a worker's loop turned last, on the monotonic clock that all workers share."""
