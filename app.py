"""Compose the service: the one module that chooses concrete parts."""

import functools
import os

from flask import Flask

from streaming import plugins, telemetry
from streaming.errors import InvalidRequest, SettingsError
from streaming.metrics import Metrics
from streaming.observers import told_to
from streaming.runnables._registry import load_registered
from streaming.settings import Settings
from streaming.sources import Source
from streaming.sources._relay import OpenAIRelay
from streaming.streams import Streams
from streaming.version import version
from streaming.web import _errors, _measuring


def create_app(settings: Settings | None = None) -> Flask:
    """Return the WSGI application. Raises `SettingsError` with a sentence that names the setting.

    To be called in the process that serves: it opens the event log and starts greenlets.
    """
    settings = settings or Settings.from_environ(os.environ)
    scheme = settings.eventlog_url.partition(":")[0]
    scheme = {"rediss": "redis"}.get(scheme, scheme)  # the same store, over TLS
    if scheme not in plugins.names("eventlogs"):
        known = ", ".join(f"{name}://" for name in plugins.names("eventlogs"))
        raise SettingsError(f"EVENTLOG_URL: {scheme!r} is not one of {known}")
    registered = load_registered(settings)

    @functools.cache
    def load_source(name: str) -> Source:
        if name in registered:
            return registered[name].source
        known = [*plugins.names("sources"), *registered]
        if name not in known:
            raise InvalidRequest(
                f"no source is called {name[:100]!r}; known: {', '.join(known)}",
                code="unknown_source",
                param="source",
            )
        source: Source = plugins.create("sources", name, settings)
        return source

    log = plugins.create("eventlogs", scheme, settings.eventlog_url, settings.sqlite_synchronous)
    load_source("chat")  # importing its SDK takes a second, in which the loop would stand still
    threads = plugins.create("threads", scheme, log)
    metrics = Metrics(
        sources=[*plugins.names("sources"), *registered],
        models=[*settings.models, settings.default_model],
        store=scheme,
        version=version(),
        directory=settings.metrics_directory,
    )
    spans = telemetry.create(settings, version())
    observer = told_to(metrics, spans) if spans else told_to(metrics)
    streams = Streams(
        log, load_source, settings, OpenAIRelay(settings), registered, threads, observer, metrics
    )
    app = Flask(__name__)
    app.url_map.merge_slashes = False  # a redirect to a tidier address would be a page of HTML
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.extensions["streams"] = streams
    _measuring.register(app, metrics, streams, settings)
    _errors.register(app)
    for name in plugins.names("web"):
        app.register_blueprint(plugins.create("web", name, streams, settings))
    return app
