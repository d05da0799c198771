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

from streaming.errors import SettingsError
from streaming.registrations import EXAMPLES, Registration, read_registrations
from streaming.upstreams import (
    ModelSettings,
    UpstreamSettings,
    check_base_url,
    check_key,
    check_url,
    read_catalogue,
)


@dataclass(frozen=True)
class Settings:
    # The upstream
    openai_api_key: str = field(default="", repr=False)
    openai_base_url: str = ""
    """An OpenAI-compatible server. Without it, and without a key, the demo model answers."""
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
    upstream_retries: int = 2
    """At most so many, and only before any of the answer was shown."""
    retry_ambiguous: bool = False
    """Retry also when the upstream may have begun, and billed, the work."""
    connect_timeout_seconds: float = 5.0
    first_token_timeout_seconds: float = 120.0
    idle_timeout_seconds: float = 60.0
    """Between two complete lines of the upstream."""
    demo_tokens_per_second: float = 60.0

    # Runnables
    runnables: tuple[str, ...] = EXAMPLES
    """What users bring: ``support=myapp.chains:chain, …``; ``none`` for nothing. The file in
    ``UPSTREAMS`` may have it as its table ``[runnables]``."""
    checkpoints_url: str = field(default="sqlite:///checkpoints.db", repr=False)
    """Where graphs keep their threads."""
    sessions_path: str = "agent_sessions.db"
    """The SQLite file where agents of OpenAI's SDK keep their threads."""

    # Streams
    eventlog_url: str = field(default="sqlite:///streams.db", repr=False)
    sqlite_synchronous: Literal["NORMAL", "FULL"] = "NORMAL"
    stream_timeout_seconds: float = 900.0
    max_stream_bytes: int = 8 * 1024 * 1024
    max_stream_events: int = 100_000
    max_streams: int = 5000
    """Running at the same time in one worker."""
    disconnect_grace_seconds: float = 30.0
    lease_seconds: float = 10.0
    retention_seconds: float = 3600.0
    """How long an ended stream can be read; its id is remembered a day longer."""
    thread_retention_seconds: float = 30 * 86_400.0
    """How long a conversation is kept after its last turn."""

    # Readers
    heartbeat_seconds: float = 10.0
    write_timeout_seconds: float = 30.0
    connection_seconds: float = 600.0
    """After which an event stream that can be resumed is closed, give or take a tenth."""
    max_wait_seconds: float = 30.0
    """Of a long poll."""

    # Requests
    max_body_bytes: int = 16 * 1024 * 1024
    max_prompt_chars: int = 200_000
    max_messages: int = 1000

    # ChatKit
    chatkit_source: str = "chat"
    """What answers in a thread, where the page does not say it: ``chat`` or the name of a runnable."""
    chatkit_on_disconnect: Literal["cancel", "grace", "continue"] = "cancel"
    """What becomes of an answer when its page goes. The stop button does no more than go."""
    chatkit_ahead: bool = False
    """Import the library before the workers are forked, not at the first request."""
    chatkit_workflow_id: str = ""
    """Of the workflow at OpenAI that hosted sessions are for."""

    # The server
    drain_seconds: float = 18.0
    """How long runs may go on after SIGTERM; the worker exits some 5 seconds later.
    For a platform that kills after 30 seconds."""
    port: int = 8000
    web_concurrency: int = 1
    """Worker processes."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

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
    health_lag_seconds: float = 5.0
    """So late an event loop makes ``/healthz`` and ``/readyz`` answer 503."""
    otel_exporter_otlp_endpoint: str = ""
    """Where OpenTelemetry's exporter sends spans, if its SDK is installed; its other variables hold too."""
    otel_exporter_otlp_traces_endpoint: str = ""
    """The same, for spans only: the whole URL."""

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, int | float) and not isinstance(value, bool):
                zero_is_fine = f.name in {
                    "upstream_retries",
                    "drain_seconds",
                    "disconnect_grace_seconds",
                    "demo_tokens_per_second",
                }
                if not math.isfinite(value) or value < 0 or (value == 0 and not zero_is_fine):
                    raise SettingsError(f"{f.name.upper()}: {value} is not a number above 0")
        if self.openai_base_url:
            check_base_url("OPENAI_BASE_URL", self.openai_base_url, "OPENAI_API_KEY")
        if self.upstream_proxy:
            check_url("UPSTREAM_PROXY", self.upstream_proxy)
        check_key("OPENAI_API_KEY", self.openai_api_key)
        _ = self.registrations
        _ = self.metrics_address
        if self.port > 65535:
            raise SettingsError(f"PORT: {self.port} is not a port, which goes up to 65535")
        if self.catalogue:
            names = tuple(model.name for model in self.catalogue)
            if self.models not in ((), names):
                raise SettingsError("MODELS: leave it out, the models are those of the file in UPSTREAMS")
            object.__setattr__(self, "models", names)
        if self.models and self.model and self.model not in self.models:
            known = f"the models of {self.upstreams}" if self.catalogue else "MODELS"
            raise SettingsError(f"MODEL: {self.model!r} is not one of {known}")

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
        """The URL without the password that may be in it."""
        parts = urlsplit(self.eventlog_url)
        if parts.password is None:
            return self.eventlog_url
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

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
