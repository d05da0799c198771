"""Which upstreams, models and runnables there are, as a TOML file says it.

Every mistake is a `SettingsError` with a sentence that names file, table and
field. None repeats a value that may hold a key.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from streaming.errors import SettingsError
from streaming.registrations import NONE, read_registrations

MAX_FILE_BYTES = 1024 * 1024
MOST_PRICE = 1e6
# A model's name goes into a header when it answers for another one.
_NAME = re.compile(r"[\x21-\x7e]{1,200}")


@dataclass(frozen=True)
class UpstreamSettings:
    """One server that models answer on."""

    name: str
    base_url: str = ""
    """Empty: OpenAI's."""
    key: str = field(default="", repr=False)
    speaks_responses: bool | None = None
    """Whether it speaks OpenAI's Responses; ``None``: to be found out by asking."""
    behind_proxy: bool = True
    """Whether it is reached through ``UPSTREAM_PROXY``, where there is one."""


@dataclass(frozen=True)
class Price:
    """What a million tokens cost, in whatever unit all prices are in."""

    tokens_in: float
    tokens_out: float


@dataclass(frozen=True)
class ModelSettings:
    """One model that a request may name."""

    name: str
    upstream: UpstreamSettings
    name_there: str
    fallbacks: tuple[str, ...] = ()
    """Other models, to be asked in this order when its upstream fails."""
    price: "Price | None" = None


class _UpstreamTable(Struct, forbid_unknown_fields=True):
    base_url: str
    key: str | None = None
    responses: bool | None = None
    proxy: bool = True


class _ModelTable(Struct, forbid_unknown_fields=True):
    upstream: str
    model: str | None = None
    fallbacks: list[str] = []
    price_in: float | None = None
    price_out: float | None = None


Table = TypeVar("Table", _UpstreamTable, _ModelTable)


def read_catalogue(
    path: str, environ: Mapping[str, str]
) -> tuple[tuple[ModelSettings, ...], tuple[str, ...]]:
    """Return the models of the file at ``path``, in its order, and what it registers as ``RUNNABLES`` does.

    Raises `SettingsError`.
    """
    said = _parse(path)
    for name in said.keys() - {"upstreams", "models", "runnables"}:
        raise SettingsError(
            f"{path}: there is no table or field {name!r} here, only upstreams, models and runnables"
        )
    upstreams = {
        name: _upstream(f"{path}: [upstreams.{_shown(name)}]", name, table, environ)
        for name, table in _tables(path, said, "upstreams")
    }
    models = {
        name: _model(f"{path}: [models.{_shown(name)}]", name, table, upstreams)
        for name, table in _tables(path, said, "models")
    }
    for model in models.values():
        _check_fallbacks(f"{path}: [models.{_shown(model.name)}] fallbacks", model, models)
    return tuple(models.values()), _runnables(f"{path}: [runnables]", said.get("runnables"))


def check_url(at: str, url: str) -> None:
    """Refuse what is not the address of a server; ``at`` begins the sentence. Raises `SettingsError`."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        known = False
    if not known:
        # Whatever is before an @, or in a query, may be a key.
        shown = repr(url) if not set(url) & set("@?#") else "this"
        raise SettingsError(f"{at}: {shown} is not a URL such as http://127.0.0.1:11434/v1")


def check_base_url(at: str, url: str, key_goes: str) -> None:
    """As `check_url`; ``key_goes`` says where a key belongs instead of into the URL."""
    check_url(at, url)
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise SettingsError(f"{at}: put the key in {key_goes}, not in the URL")
    if parts.query or parts.fragment:
        raise SettingsError(f"{at}: a path is added to this URL, so it can have no ? and no #")


def check_key(at: str, key: str) -> None:
    """Refuse a key that cannot stand in a header; do not repeat it. Raises `SettingsError`."""
    if not re.fullmatch(r"[\x21-\x7e]*", key):
        raise SettingsError(f"{at}: a key is visible ASCII characters without spaces")


def _parse(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
        if len(text) > MAX_FILE_BYTES:
            raise SettingsError(f"UPSTREAMS: {path} is larger than {MAX_FILE_BYTES} bytes")
        return tomllib.loads(text.decode())
    except (OSError, ValueError) as error:
        # A ValueError is one of TOML, of UTF-8, or of a path that holds a NUL.
        reason = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(f"UPSTREAMS: {path} cannot be read: {reason}") from None
    except RecursionError:
        raise SettingsError(f"UPSTREAMS: {path} cannot be read: it is nested too deep") from None


def _tables(path: str, said: Mapping[str, Any], family: str) -> list[tuple[str, Any]]:
    tables = said.get(family)
    if not isinstance(tables, dict) or not tables:
        raise SettingsError(f"{path}: {family}: give at least one table [{family}.NAME]")
    for name in tables:
        if not _NAME.fullmatch(name):
            raise SettingsError(f"{path}: [{family}.{name!r}]: a name is 1 to 200 visible ASCII characters")
    return list(tables.items())


def _shown(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else f'"{name}"'


def _convert(at: str, table: Any, kind: type[Table]) -> Table:
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        said, _, place = str(error).partition(" - at `$")
        place = place.removesuffix("`").removeprefix(".")
        if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", said):
            known = ", ".join(kind.__struct_fields__)
            raise SettingsError(f"{at} {unknown[1]}: there is no such field; known: {known}") from None
        if missing := re.fullmatch(r"Object missing required field `(.*)`", said):
            raise SettingsError(f"{at} {missing[1]}: it is missing") from None
        raise SettingsError(f"{at}{' ' + place if place else ''}: {said[:1].lower()}{said[1:]}") from None


def _upstream(at: str, name: str, table: Any, environ: Mapping[str, str]) -> UpstreamSettings:
    said = _convert(at, table, _UpstreamTable)
    check_base_url(f"{at} base_url", said.base_url, "a variable, and its name in the field key")
    key = ""
    if said.key is not None:
        key = environ.get(said.key, "").strip()
        if not key:  # the name is not repeated: it may be the key itself
            raise SettingsError(f"{at} key: the environment has no variable of this name, or it is empty")
        check_key(f"{at} key", key)
    return UpstreamSettings(name, said.base_url, key, said.responses, said.proxy)


def _runnables(at: str, table: Any) -> tuple[str, ...]:
    """Return the registrations, none where there is no table."""
    if table is None:
        return ()
    if not isinstance(table, dict) or not all(isinstance(place, str) for place in table.values()):
        raise SettingsError(f'{at}: write lines such as support = "myapp.chains:chain"')
    registered = tuple(f"{name}={place}" for name, place in table.items()) or (NONE,)
    read_registrations(at, registered)
    return registered


def _model(at: str, name: str, table: Any, upstreams: Mapping[str, UpstreamSettings]) -> ModelSettings:
    said = _convert(at, table, _ModelTable)
    if said.upstream not in upstreams:
        known = ", ".join(upstreams)
        raise SettingsError(f"{at} upstream: no upstream is called {said.upstream!r}; known: {known}")
    if said.model is not None and not said.model.strip():
        raise SettingsError(f"{at} model: it is empty; leave it out if it has the same name there")
    price = read_price(at, said.price_in, said.price_out)
    return ModelSettings(name, upstreams[said.upstream], said.model or name, tuple(said.fallbacks), price)


def read_prices(at: str, prices: Sequence[str]) -> Iterator[tuple[str, Price]]:
    """Read ``model=in/out``; ``at`` begins the sentence. Raises `SettingsError`.

    >>> dict(read_prices("PRICES", ["small=0.25/2"]))
    {'small': Price(tokens_in=0.25, tokens_out=2.0)}
    """
    for said in prices:
        model, _, price = said.rpartition("=")
        tokens_in, slash, tokens_out = price.partition("/")
        try:
            numbers = float(tokens_in), float(tokens_out)
        except ValueError:
            numbers = None
        if not model or not slash or numbers is None:
            raise SettingsError(f"{at}: {said!r} is not a price such as gpt-5-mini=0.25/2")
        found = read_price(f"{at}: {model}", *numbers)
        assert found
        yield model.strip(), found


def read_price(at: str, tokens_in: float | None, tokens_out: float | None) -> Price | None:
    """Return the price, ``None`` where there is none. Raises `SettingsError`."""
    if tokens_in is None and tokens_out is None:
        return None
    for name, price in (("price_in", tokens_in), ("price_out", tokens_out)):
        if price is None:
            raise SettingsError(f"{at} {name}: it is missing; give both prices, or none")
        if not 0 <= price <= MOST_PRICE:
            raise SettingsError(f"{at} {name}: {price} is not a price, from 0 to {MOST_PRICE:g}")
    assert tokens_in is not None
    assert tokens_out is not None
    return Price(tokens_in, tokens_out)


def _check_fallbacks(at: str, model: ModelSettings, models: Mapping[str, ModelSettings]) -> None:
    for fallback in model.fallbacks:
        if fallback not in models:
            known = ", ".join(name for name in models if name != model.name)
            raise SettingsError(f"{at}: no model is called {fallback!r}; known: {known or 'none besides it'}")
        if fallback == model.name:
            raise SettingsError(f"{at}: {fallback!r} is the model itself")
        if model.fallbacks.count(fallback) > 1:
            raise SettingsError(f"{at}: {fallback!r} is named twice")
