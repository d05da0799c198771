"""A setting that cannot be used stops the start with a sentence that names it."""

import re
from dataclasses import fields
from typing import Any

import pytest

from app import create_app
from streaming.errors import SettingsError
from streaming.settings import Settings

VARIABLES = [f.name.upper() for f in fields(Settings) if f.name != "catalogue"]
NUMBERS = [f.name for f in fields(Settings) if f.type in (int, float)]
WHOLE = [f.name for f in fields(Settings) if f.type is int]
NO_LIMIT = """max_output_tokens max_images running_per_principal creates_per_minute readers_per_stream
    readers_per_principal polls_per_second tokens_per_day bytes_per_day cost_per_day visitor_running
    visitor_creates_per_minute visitor_readers visitor_tokens_per_day visitor_max_output_tokens
    visitor_max_images visitors_creates_per_minute visitors_tokens_per_day visitors_cost_per_day
    total_creates_per_minute total_tokens_per_day total_bytes_per_day total_cost_per_day""".split()
MAY_BE_ZERO = {
    "upstream_retries",
    "disconnect_grace_seconds",
    "demo_tokens_per_second",
    "drain_seconds",
    *NO_LIMIT,
    "proxy_hops",
}


def read(**environ: str) -> Settings:
    return Settings.from_environ(environ)


def refused(**environ: str) -> str:
    """Return the sentence a bad variable is refused with, which begins with the variable's name."""
    with pytest.raises(SettingsError) as error:
        read(**environ)
    sentence = str(error.value)
    assert sentence.startswith(f"{next(iter(environ))}: "), sentence
    return sentence


def test_there_is_a_default_for_everything() -> None:
    settings = read()

    assert settings == Settings()
    assert settings.is_demo
    assert settings.default_model == "demo"


def test_variables_of_others_are_none_of_ours() -> None:
    assert read(PATH="/bin", HOME="/root", OPENAI_ORG="x", settings="1") == Settings()


def test_every_setting_is_read_from_the_variable_that_bears_its_name() -> None:
    values: dict[str, Any] = {}
    environ: dict[str, str] = {}
    special: dict[str, Any] = {
        "openai_api_key": "some-key",
        "openai_base_url": "http://127.0.0.1:11434/v1",
        "upstream_responses": "yes",
        "upstream_proxy": "http://127.0.0.1:3128",
        "eventlog_url": "sqlite:////var/lib/streams.db",
        "sqlite_synchronous": "FULL",
        "chatkit_on_disconnect": "continue",
        "log_level": "DEBUG",
        "auth": "proxy",
        "api_keys": ("4f2a9c01.abc", "4f2a9c02.abc"),
        "auth_proxy_header": "X-Remote-User",
        "auth_proxy_addresses": ("10.0.0.1", "10.1.0.0/16", "unix"),
        "cors_origins": ("https://app.example.com", "http://localhost:3000"),
        "bind_host": "127.0.0.1",
        "page": "public",
        "secret_key": ("s" * 32, "t" * 32),
        "stream_get": "off",
        "log_format": "json",
        "metrics_bind": "0.0.0.0:9464",
        "model": "m-2",
        "models": ("m-1", "m-2"),
        "runnables": ("support=myapp.chains:chain", "agent=myapp.graph:agent"),
        "prices": ("m-1=0.25/2", "m-2=1/8"),
    }
    for f in fields(Settings):
        if f.name in ("upstreams", "catalogue"):
            continue  # the path of a file, and what is in it: see test_upstreams.py
        if f.name in special:
            values[f.name] = special[f.name]
        elif f.type is bool:
            values[f.name] = True
        elif f.type is int:
            values[f.name] = 7
        elif f.type is float:
            values[f.name] = 7.5
        elif f.type is str:
            values[f.name] = f"some {f.name}"
        else:
            pytest.fail(f"say here what {f.name} may be")
        value = values[f.name]
        environ[f.name.upper()] = ", ".join(value) if isinstance(value, tuple) else str(value)

    settings = Settings.from_environ(environ)

    assert {name: getattr(settings, name) for name in values} == values
    assert not settings.is_demo
    assert settings.default_model == "m-2"


@pytest.mark.parametrize("name", VARIABLES)
def test_an_empty_variable_counts_as_not_set(name: str) -> None:
    assert Settings.from_environ({name: ""}) == Settings.from_environ({name: "  "}) == Settings()


# Bad values


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(
    "bad", ["many", "1,5", "5s", "0x10", "--1", "1 2", "nan", "inf", "-inf", "-1", "-0.5"]
)
def test_what_is_no_number_above_zero_is_refused(name: str, bad: str) -> None:
    refused(**{name.upper(): bad})


@pytest.mark.parametrize("name", NUMBERS)
def test_zero_is_fine_only_where_it_means_something(name: str) -> None:
    if name in MAY_BE_ZERO:
        assert getattr(read(**{name.upper(): "0"}), name) == 0
    else:
        refused(**{name.upper(): "0"})


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("bad", ["1.5", "1e3", "7.0"])
def test_what_is_counted_is_whole(name: str, bad: str) -> None:
    assert "whole number" in refused(**{name.upper(): bad})


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("RETRY_AMBIGUOUS", "perhaps"),
        ("RETRY_AMBIGUOUS", "2"),
        ("SQLITE_SYNCHRONOUS", "OFF"),
        ("LOG_LEVEL", "loud"),
        ("OPENAI_BASE_URL", "localhost:11434"),
        ("OPENAI_BASE_URL", "127.0.0.1:11434/v1"),
        ("OPENAI_BASE_URL", "ftp://host/v1"),
        ("OPENAI_BASE_URL", "http://"),
        ("OPENAI_BASE_URL", "http:///v1"),
        ("OPENAI_BASE_URL", "/v1"),
        ("OPENAI_BASE_URL", "http://[::1/v1"),
        ("OPENAI_BASE_URL", "http://host:99999/v1"),
        ("OPENAI_BASE_URL", "http://host:port/v1"),
        ("OPENAI_BASE_URL", "https://host/v1?version=1"),
        ("OPENAI_BASE_URL", "https://host/v1#part"),
        ("UPSTREAM_RESPONSES", "perhaps"),
        ("UPSTREAM_RESPONSES", "true"),
        ("UPSTREAM_PROXY", "nonsense"),
        ("UPSTREAM_PROXY", "ftp://proxy"),
        ("UPSTREAM_PROXY", "http://"),
        ("PORT", "65536"),
    ],
)
def test_a_bad_value_is_refused_by_name(name: str, bad: str) -> None:
    refused(**{name: bad})


@pytest.mark.parametrize(
    "url",
    [
        "https://sk-123@host/v1",
        "https://user:sk-123@host/v1",
        "https://host/v1?key=sk-123",
        "https://host/v1#sk-123",
        "https:sk-123@host",
        "sk-123@host",
        "ftp://sk-123@host/v1",
        "https://sk-123@host:port/v1",
    ],
)
def test_a_key_in_the_url_is_refused_and_not_repeated(url: str) -> None:
    assert "sk-123" not in refused(OPENAI_BASE_URL=url)


@pytest.mark.parametrize("url", ["ftp://user:pa55@proxy", "user:pa55@proxy:3128"])
def test_the_password_of_a_proxy_is_not_repeated(url: str) -> None:
    assert "pa55" not in refused(UPSTREAM_PROXY=url)


@pytest.mark.parametrize("key", ["sk 123", "sk-123\nHost: elsewhere", "sk-12\u00e9", "\u201csk-123\u201d"])
def test_a_key_that_cannot_stand_in_a_header_is_refused_and_not_repeated(key: str) -> None:
    assert "sk" not in refused(OPENAI_API_KEY=key)


def test_whether_the_one_upstream_speaks_responses_can_be_said() -> None:
    def said(**environ: str) -> bool | None:
        return read(OPENAI_API_KEY="k", **environ).upstream.speaks_responses

    assert said() is None
    assert said(UPSTREAM_RESPONSES="auto") is None
    assert said(UPSTREAM_RESPONSES="YES") is True
    assert said(UPSTREAM_RESPONSES="no") is False
    assert read(UPSTREAM_RESPONSES="yes").upstream.speaks_responses is False  # the demo model


@pytest.mark.parametrize("name", ["RETRY_AMBIGUOUS"])
@pytest.mark.parametrize(
    ("text", "value"),
    [("1", True), ("true", True), ("YES", True), ("On", True), ("0", False), ("False", False), ("no", False)],
)
def test_yes_and_no_have_several_names(name: str, text: str, value: bool) -> None:
    assert getattr(read(**{name: text}), name.lower()) is value


def test_choices_may_be_written_small() -> None:
    assert read(SQLITE_SYNCHRONOUS="full", LOG_LEVEL="warning").log_level == "WARNING"


# Models


def test_the_model_must_be_one_of_the_models() -> None:
    assert read(OPENAI_API_KEY="k", MODELS="a, b ,c", MODEL="b").default_model == "b"
    assert "'x'" in refused(MODEL="x", MODELS="a,b")


def test_the_first_of_the_models_is_the_default() -> None:
    assert read(OPENAI_API_KEY="k", MODELS="a,b").default_model == "a"
    assert read(OPENAI_API_KEY="k", MODEL="m").default_model == "m"
    assert read(OPENAI_API_KEY="k").default_model


def test_a_list_may_have_gaps() -> None:
    assert read(MODELS=" a,, b , ").models == ("a", "b")


# Secrets


def test_no_repr_shows_the_key() -> None:
    settings = read(OPENAI_API_KEY="sk-123", EVENTLOG_URL="redis://:pa55@host:6379/0")

    assert "sk-123" not in repr(settings)
    assert "sk-123" not in str(settings)
    assert "sk-123" not in repr(settings.upstream)
    assert "pa55" not in repr(settings)
    assert "pa55" not in settings.eventlog_url_shown
    assert "host" in settings.eventlog_url_shown


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Settings().model = "other"  # type: ignore[misc]


# The event log's URL is checked by those who open it


@pytest.mark.parametrize(
    "url",
    ["", "mongodb://host", "_ids://", "sqlite://host/x", "sqlite:///", "streams.db", "memory2://", "://"],
)
def test_an_event_log_that_cannot_be_opened_stops_the_start(url: str) -> None:
    with pytest.raises(SettingsError, match=re.escape("EVENTLOG_URL: ")):
        create_app(Settings(eventlog_url=url))


@pytest.mark.parametrize(
    ("text", "address"),
    [("9464", ("127.0.0.1", 9464)), ("0.0.0.0:80", ("0.0.0.0", 80)), ("[::1]:9464", ("::1", 9464))],
)
def test_metrics_are_bound_to_loopback_unless_another_host_is_named(
    text: str, address: tuple[str, int]
) -> None:
    assert read(METRICS_BIND=text).metrics_address == address


@pytest.mark.parametrize("text", ["0", "port", "host:", "99999", "1.2.3.4:-1", "1234567"])
def test_an_address_of_the_metrics_that_is_none_is_refused(text: str) -> None:
    assert text in refused(METRICS_BIND=text)
