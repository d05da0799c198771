"""Compose the service: the one module that chooses concrete parts."""

import functools
import os

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from streaming import plugins, telemetry
from streaming.errors import InvalidRequest
from streaming.eventlogs._schemes import scheme_of
from streaming.keyring import Keyring, read_entries
from streaming.limiter import Limiter
from streaming.metrics import Metrics
from streaming.observers import told_to
from streaming.runnables._registry import load_registered
from streaming.settings import Settings
from streaming.sources import Source
from streaming.sources._relay import OpenAIRelay
from streaming.streams import Streams
from streaming.version import version
from streaming.web import _access, _cors, _errors, _headers, _measuring, _principals, _sessions
from streaming.web._refused import RefusalLog
from streaming.web._rights import Rights


def create_app(settings: Settings | None = None) -> Flask:
    """Return the WSGI application. Raises `SettingsError` with a sentence that names the setting.

    To be called in the process that serves: it opens the event log and starts greenlets.
    """
    settings = settings or Settings.from_environ(os.environ)
    scheme = scheme_of(settings.eventlog_url)
    registered = load_registered(settings)
    fixed_keys = read_entries(settings.api_keys)

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
    counters, accounts = (plugins.create(family, scheme, log) for family in ("limits", "accounts"))
    limiter = Limiter(settings, counters, accounts, _principals.current)
    keys = Keyring(plugins.create("keys", scheme, log), fixed_keys)
    refused = RefusalLog(metrics)
    rights = Rights(keys, refused)
    streams = Streams(
        log,
        load_source,
        settings,
        OpenAIRelay(settings),
        registered,
        threads,
        told_to(metrics, rights, *([spans] if spans else [])),
        limiter=limiter,
        asking=_principals.asking,
        lag_probe=metrics,
        reading=rights.reading,
    )
    rights.cancel = streams.stop
    app = Flask(__name__)
    if settings.proxy_hops:
        # Not the host: few proxies set it, and what they do not set is what a client sent.
        hops = settings.proxy_hops
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=0)  # type: ignore[method-assign]
    app.url_map.merge_slashes = False  # a redirect to a tidier address would be a page of HTML
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.extensions["streams"] = streams
    app.extensions["accounts"] = accounts
    app.extensions["counters"] = counters
    _measuring.register(app, metrics, streams, settings)
    _errors.register(app)
    _cors.register(app, settings)
    access = _access.register(app, settings, keys, rights, refused)
    _sessions.register(app, settings, plugins.create("sessions", scheme, log), access, counters)
    _headers.register(app)
    for name in plugins.names("web"):
        app.register_blueprint(plugins.create("web", name, streams, settings))
    return app
