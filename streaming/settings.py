"""Settings: read from the environment once, checked at start, then passed as values.

The name of a field in capitals is the name of its variable; only the catalogue
is read from the file that ``UPSTREAMS`` names. A value that cannot be used
stops the start with a sentence that names the variable, or the place in the file.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self, get_args, get_origin
from urllib.parse import urlsplit

from streaming._access_settings import check_access
from streaming.errors import SettingsError
from streaming.registrations import EXAMPLES, Registration, read_registrations
from streaming.upstreams import (
    ModelSettings,
    Price,
    UpstreamSettings,
    check_base_url,
    check_key,
    check_url,
    read_catalogue,
    read_prices,
)

MIN_SECRET_CHARS = 32


@dataclass(frozen=True)
class Settings:
    # The upstream
    openai_api_key: str = field(default="", repr=False)
    """The key for the upstream. With neither key nor base URL the built-in demo model answers."""
    openai_base_url: str = ""
    """An OpenAI-compatible server, such as ``http://127.0.0.1:11434/v1``. Empty with a key: OpenAI's own."""
    model: str = ""
    """The model of a request that names none; the first of ``MODELS`` where that is given."""
    models: tuple[str, ...] = ()
    """What a request may name. Empty: whatever the upstream knows. With a catalogue: its models."""
    upstreams: str = ""
    """The path of a TOML file with several upstreams and models, instead of the one above."""
    catalogue: tuple[ModelSettings, ...] = ()
    """The models of that file, in its order."""
    upstream_responses: Literal["auto", "yes", "no"] = "auto"
    """Whether the one upstream speaks OpenAI's Responses; ``auto``: found out by asking."""
    upstream_proxy: str = field(default="", repr=False)
    """An HTTP proxy to the upstream, with its user and password if it wants them."""
    upstream_retries: int = 2
    """At most so many, and only before any of the answer was shown."""
    retry_ambiguous: bool = False
    """Retry also when the upstream may have begun, and billed, the work."""
    connect_timeout_seconds: float = 5.0
    """Of making a connection to the upstream."""
    first_token_timeout_seconds: float = 120.0
    """From the request to the first of the upstream's answer."""
    idle_timeout_seconds: float = 60.0
    """Between two complete lines of the upstream."""
    demo_tokens_per_second: float = 60.0
    """How fast the demo model answers; ``0``: as fast as it can."""

    # Runnables
    runnables: tuple[str, ...] = EXAMPLES
    """What users bring: ``support=myapp.chains:chain, …``; ``none`` for nothing. The file in
    ``UPSTREAMS`` may have it as its table ``[runnables]``."""
    checkpoints_url: str = field(default="sqlite:///checkpoints.db", repr=False)
    """Where graphs keep their threads."""
    sessions_path: str = "agent_sessions.db"
    """The SQLite file where agents of OpenAI's SDK keep their threads."""

    # Access
    auth: Literal["auto", "open", "keys", "proxy"] = "auto"
    """Who is let in: who has a key (``keys``), whom a proxy names (``proxy``), everybody (``open``).
    ``auto``: ``keys`` with ``API_KEYS``, else ``open``, and then on this machine alone."""
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    """Keys beside those of the store: entries of ``python -m streaming keys create --as-setting``,
    which hold a hash of the key and not the key."""
    auth_proxy_header: str = "X-Forwarded-User"
    """With ``AUTH=proxy``: the header in which the proxy names who asks."""
    auth_proxy_addresses: tuple[str, ...] = ()
    """With ``AUTH=proxy``: whose header is believed: addresses and networks, ``unix`` for a unix socket."""
    proxy_hops: int = 0
    """How many proxies in front write ``X-Forwarded-For`` and ``X-Forwarded-Proto``; 0: nobody's count."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may use the API, such as ``https://app.example.com``. Their pages send a key."""
    bind_host: str = "0.0.0.0"
    """The address gunicorn listens on, unless its command line says otherwise with ``-b``."""

    # Streams
    eventlog_url: str = field(default="sqlite:///streams.db", repr=False)
    """Where streams last: ``sqlite:////absolute/path`` for one machine, ``redis://host:port/0`` (Redis or
    Valkey 7 and newer; ``rediss://`` with TLS) for several, ``memory://`` for one worker that may forget."""
    sqlite_synchronous: Literal["NORMAL", "FULL"] = "NORMAL"
    """``FULL`` loses nothing in a power cut, and costs a sync for each commit."""
    stream_timeout_seconds: float = 900.0
    """Of a whole run."""
    max_stream_bytes: int = 8 * 1024 * 1024
    """Of one answer, as it is kept in the log."""
    max_stream_events: int = 100_000
    """Of one answer."""
    max_streams: int = 5000
    """Running at the same time in one worker."""
    disconnect_grace_seconds: float = 30.0
    """After which a run that nobody reads is cancelled, unless its request says otherwise."""
    lease_seconds: float = 10.0
    """After which a worker that stands still loses its runs to another."""
    retention_seconds: float = 3600.0
    """How long an ended stream can be read; its id is remembered a day longer."""
    thread_retention_seconds: float = 30 * 86_400.0
    """How long a conversation is kept after its last turn."""

    # Readers
    heartbeat_seconds: float = 10.0
    """After so long a silence an event stream gets a comment, which keeps proxies from cutting it."""
    write_timeout_seconds: float = 30.0
    """After which a client that does not read is cut off."""
    connection_seconds: float = 600.0
    """After which an event stream that can be resumed is closed, give or take a tenth."""
    max_wait_seconds: float = 30.0
    """Of a long poll."""

    # Requests
    max_body_bytes: int = 16 * 1024 * 1024
    """Of a request."""
    max_prompt_chars: int = 200_000
    """Of all the text in a request."""
    max_messages: int = 1000
    """Of one request."""
    head_timeout_seconds: float = 15.0
    """From a request's first byte to the end of its headers."""
    body_timeout_seconds: float = 20.0
    """For a request's body; it gets more time as it comes, see the next."""
    body_bytes_per_second: int = 8192
    """A body that comes at least so fast may take as long as it needs."""

    # Limits
    max_output_tokens: int = 0
    """The most a request may ask an answer to have: more is lowered to it, and without a number it is
    set. 0: no limit."""
    max_images: int = 50
    """In the messages of one request."""
    max_readers: int = 8000
    """Following streams in one worker, which takes a quarter more connections: those are for all else."""
    running_per_principal: int = 10
    """Streams of one key, user or visitor at the same time. For what is per principal: 0 is no limit,
    a key may have limits of its own, and the open mode has none."""
    creates_per_minute: int = 30
    """Runs that one principal may start."""
    readers_per_stream: int = 20
    """Who follow one stream, for the principal whose it is."""
    readers_per_principal: int = 100
    """Streams that one principal follows at the same time, counted once for each reader."""
    polls_per_second: int = 10
    """In each worker."""
    tokens_per_day: int = 0
    """Of questions and answers, UTC. Once used up new runs are refused; those that run are finished."""
    bytes_per_day: int = 0
    """Of answers, for each principal, UTC."""
    cost_per_day: float = 0.0
    """In the unit of the prices."""
    visitor_running: int = 2
    """Of one visitor of a public page, as all that begins so."""
    visitor_creates_per_minute: int = 6
    """Runs that one visitor may start."""
    visitor_readers: int = 10
    """Streams that one visitor follows at the same time."""
    visitor_tokens_per_day: int = 50_000
    """Of questions and answers of one visitor, UTC."""
    visitor_max_output_tokens: int = 4000
    """The most that a visitor may ask an answer to have."""
    visitor_max_images: int = 4
    """In the messages of one request of a visitor."""
    visitors_creates_per_minute: int = 60
    """Of all visitors together, because who deletes a cookie is another one. 0: no limit."""
    visitors_tokens_per_day: int = 2_000_000
    """Of all visitors together, UTC."""
    visitors_cost_per_day: float = 0.0
    """Of all visitors together, in the unit of the prices."""
    total_creates_per_minute: int = 0
    """Of everybody together, on all workers and machines; 0: no limit."""
    total_tokens_per_day: int = 0
    """Of everybody together, UTC."""
    total_bytes_per_day: int = 0
    """Of all answers together, UTC."""
    total_cost_per_day: float = 0.0
    """Of everybody together, in the unit of the prices."""
    prices: tuple[str, ...] = ()
    """What a million tokens cost, in and out: ``gpt-5-mini=0.25/2``. A catalogue has its own."""
    usage_retention_days: int = 400
    """How long it is kept who used what."""

    # ChatKit
    chatkit_source: str = "chat"
    """What answers in a thread, where the page does not say it: ``chat`` or the name of a runnable."""
    chatkit_on_disconnect: Literal["cancel", "grace", "continue"] = "cancel"
    """What becomes of an answer when its page goes. The stop button does no more than go."""
    chatkit_ahead: bool = False
    """Import the library before the workers are forked, not at the first request."""
    chatkit_workflow_id: str = ""
    """Of the workflow at OpenAI that hosted sessions are for."""

    # The page
    page: Literal["auto", "private", "public", "off"] = "auto"
    """Who may use it: who signs in with a key (``private``), anybody, within small limits
    (``public``), nobody. ``auto``: everybody where ``AUTH`` is ``open``, else ``private``."""
    secret_key: tuple[str, ...] = field(default=(), repr=False)
    """What cookies are signed with: at least 32 characters. Several, the newest first, to change it
    without ending sessions. Without it, a secret is made, and kept in the store."""
    session_idle_seconds: float = 12 * 3600.0
    """A session that is not used for so long is over."""
    session_seconds: float = 7 * 86_400.0
    """So long after signing in, a session is over in any case."""
    sign_in_failures_per_minute: int = 10
    """From one address; all addresses together may fail twenty times as often."""
    visitors_per_hour: int = 60
    """New visitors of a public page from one address; fifty times as many from all."""
    stream_get: Literal["on", "off"] = "on"
    """Whether ``GET /stream?prompt=`` starts runs. ``off``: nothing is at that address."""

    # The server
    drain_seconds: float = 18.0
    """How long runs may go on after SIGTERM; the worker exits some 5 seconds later.
    For a platform that kills after 30 seconds."""
    port: int = 8000
    """Where gunicorn listens, unless its command line says otherwise with ``-b``."""
    web_concurrency: int = 1
    """Worker processes."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """From which level on this service's own records are written to stderr."""

    # Observability
    log_format: Literal["text", "json"] = "text"
    """One line for each record either way."""
    log_exceptions: Literal["types", "full"] = "types"
    """``full`` shows also the words of exceptions, which may quote prompts: for development."""
    access_log: bool = False
    """Write a line for each request, without its query; at ``LOG_LEVEL=DEBUG`` it is written anyway."""
    metrics_bind: str = ""
    """Where ``/metrics`` is instead of beside the service: ``9464`` for loopback only, or ``host:port``."""
    metrics_token: str = field(default="", repr=False)
    """The bearer token that shows ``/metrics`` beside the service; keys with the scope ``metrics`` do too."""
    metrics_directory: str = ""
    """Where the workers share their numbers; made anew at each start if it is not given."""
    health_lag_seconds: float = 10.0
    """So late an event loop makes ``/healthz`` and ``/readyz`` answer 503."""
    otel_exporter_otlp_endpoint: str = ""
    """Where OpenTelemetry's exporter sends spans, if its SDK is installed; its other variables hold too."""
    otel_exporter_otlp_traces_endpoint: str = ""
    """The same, for spans only: the whole URL."""

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, int | float) and not isinstance(value, bool):
                zero_is_fine = f.name in _ZERO_IS_FINE
                if not math.isfinite(value) or value < 0 or (value == 0 and not zero_is_fine):
                    raise SettingsError(f"{f.name.upper()}: {value} is not a number above 0")
        check_access(self)
        object.__setattr__(self, "_auth_is_chosen", self.auth != "auto" or bool(self.api_keys))
        if self.auth == "auto":
            object.__setattr__(self, "auth", "keys" if self.api_keys else "open")
        if self.openai_base_url:
            check_base_url("OPENAI_BASE_URL", self.openai_base_url, "OPENAI_API_KEY")
        if self.upstream_proxy:
            check_url("UPSTREAM_PROXY", self.upstream_proxy)
        check_key("OPENAI_API_KEY", self.openai_api_key)
        _ = self.registrations, self.price_of
        _ = self.metrics_address
        if self.port > 65535:
            raise SettingsError(f"PORT: {self.port} is not a port, which goes up to 65535")
        if min(map(len, self.secret_key), default=MIN_SECRET_CHARS) < MIN_SECRET_CHARS:
            raise SettingsError(f"SECRET_KEY: at least {MIN_SECRET_CHARS} characters, which nobody can guess")
        if self.page in ("private", "public") and self.auth == "open":
            raise SettingsError(f"PAGE: {self.page} needs AUTH=keys or AUTH=proxy, else everybody is let in")
        if self.catalogue:
            names = tuple(model.name for model in self.catalogue)
            if self.models not in ((), names):
                raise SettingsError("MODELS: leave it out, the models are those of the file in UPSTREAMS")
            object.__setattr__(self, "models", names)
        if self.models and self.model and self.model not in self.models:
            known = f"the models of {self.upstreams}" if self.catalogue else "MODELS"
            raise SettingsError(f"MODEL: {self.model!r} is not one of {known}")

    @property
    def price_of(self) -> dict[str, Price]:
        """The prices, by model. Raises `SettingsError`."""
        if self.catalogue and self.prices:
            raise SettingsError("PRICES: leave it out, the file in UPSTREAMS has price_in and price_out")
        found = {model.name: model.price for model in self.catalogue if model.price is not None}
        return found | dict(read_prices("PRICES", self.prices))

    @property
    def auth_is_chosen(self) -> bool:
        """Whether somebody said who is to be let in; where not, that is who is on this machine."""
        return bool(self.__dict__["_auth_is_chosen"])

    @property
    def registrations(self) -> tuple[Registration, ...]:
        """What is to be registered, in order. Nothing of it was imported. Raises `SettingsError`."""
        models = {"demo"} if self.is_demo else {*self.models, self.model}
        found = read_registrations("RUNNABLES", self.runnables)
        if self.runnables == EXAMPLES:
            return tuple(each for each in found if each.name not in models)
        for each in found:
            if each.name in models:
                # To clients of OpenAI's dialects a runnable is a model.
                raise SettingsError(f"RUNNABLES: {each.name} is the name of a model too")
        return found

    @property
    def page_access(self) -> Literal["open", "private", "public", "off"]:
        """Who may use the page; ``open``: everybody, and all are one."""
        if self.page != "auto":
            return self.page
        return "open" if self.auth == "open" else "private"

    @property
    def signs_in(self) -> bool:
        """Whether somebody signs in to the page with a key."""
        return self.auth == "keys" and self.page_access in ("private", "public")

    @property
    def metrics_address(self) -> tuple[str, int] | None:
        """The host and port of ``/metrics``, where it has its own. Raises `SettingsError`."""
        if not self.metrics_bind:
            return None
        host, _, port = self.metrics_bind.rpartition(":")
        if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) <= 65535):
            raise SettingsError(f"METRICS_BIND: {self.metrics_bind!r} is neither a port nor host:port")
        return host.strip("[]") or "127.0.0.1", int(port)

    @property
    def is_demo(self) -> bool:
        return not self.openai_api_key and not self.openai_base_url and not self.catalogue

    @property
    def upstream(self) -> UpstreamSettings:
        """The one upstream where there is no catalogue."""
        return UpstreamSettings(
            "demo" if self.is_demo else "default",
            self.openai_base_url,
            self.openai_api_key,
            # The demo model has chat completions only.
            False if self.is_demo else {"auto": None, "yes": True, "no": False}[self.upstream_responses],
        )

    @property
    def upstreams_shown(self) -> str:
        """Where the models are, for people."""
        if self.is_demo:
            return "in this process"
        asked = {model.upstream.name: model.upstream for model in self.catalogue}
        urls = [upstream.base_url for upstream in asked.values()] or [self.openai_base_url]
        return ", ".join(url or "https://api.openai.com/v1" for url in urls)

    @property
    def eventlog_url_shown(self) -> str:
        """The URL without the password that may be in it, before the host or in the query."""
        parts = urlsplit(self.eventlog_url)
        if parts.password is None and not parts.query:
            return self.eventlog_url
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()

    @property
    def default_model(self) -> str:
        if self.is_demo:
            return "demo"
        return self.model or (self.models[0] if self.models else "gpt-5-mini")

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Read every field from the variable that bears its name, and the file in ``UPSTREAMS``.

        An empty variable counts as not set. Raises `SettingsError`.
        """
        given: dict[str, Any] = {}
        for f in fields(cls):
            text = environ.get(f.name.upper(), "").strip()
            if text and f.name != "catalogue":
                given[f.name] = _parse(f.name.upper(), text, f.type)
        if path := given.get("upstreams"):
            given["catalogue"], runnables = read_catalogue(path, environ)
            if runnables and "runnables" in given:
                raise SettingsError(f"RUNNABLES: leave it out, {path} has a table [runnables]")
            if runnables:
                given["runnables"] = runnables
        return cls(**given)


def _parse(name: str, text: str, kind: Any) -> Any:
    if get_origin(kind) is Literal:
        choices = {choice.upper(): choice for choice in get_args(kind)}
        if text.upper() not in choices:
            raise SettingsError(f"{name}: {text!r} is not one of {', '.join(choices.values())}")
        return choices[text.upper()]
    if kind is bool:
        if text.lower() not in _BOOLEANS:
            raise SettingsError(f"{name}: {text!r} is neither true nor false")
        return _BOOLEANS[text.lower()]
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            noun = "a whole number" if kind is int else "a number"
            raise SettingsError(f"{name}: {text!r} is not {noun}") from None
    if kind is not str:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return text


_ZERO_IS_FINE = frozenset(
    """proxy_hops upstream_retries drain_seconds disconnect_grace_seconds demo_tokens_per_second
    max_output_tokens max_images running_per_principal creates_per_minute readers_per_stream
    readers_per_principal polls_per_second tokens_per_day bytes_per_day cost_per_day
    visitor_running visitor_creates_per_minute visitor_readers visitor_tokens_per_day
    visitor_max_output_tokens visitor_max_images visitors_creates_per_minute visitors_tokens_per_day
    visitors_cost_per_day total_creates_per_minute total_tokens_per_day total_bytes_per_day
    total_cost_per_day""".split()
)

_BOOLEANS = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}
