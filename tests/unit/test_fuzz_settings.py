"""Settings and the catalogue under arbitrary text: a value, or a sentence that names the setting."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.errors import SettingsError
from streaming.settings import Settings
from streaming.upstreams import read_catalogue
from tests.fuzzing import TEXTS, attempt, fuzzed, near

NAMES = st.sampled_from([f.name.upper() for f in fields(Settings) if f.name != "upstreams"])
VALUES = st.one_of(
    st.sampled_from(
        "0 1 -1 1e999 nan inf 1_000 ٣ 0x10 true NO auto http://a https://u:p@h/?k=1 a=b:c a=b,c none".split()
    ),
    TEXTS,
    st.integers().map(str),
    st.floats().map(str),
)
TOML = st.lists(
    st.sampled_from(
        [
            "[upstreams.a]\n",
            "[models.m]\n",
            "[runnables]\n",
            'base_url = "http://127.0.0.1:1/v1"\n',
            'base_url = "ftp://x"\n',
            'key = "NO_SUCH_VARIABLE"\n',
            'upstream = "a"\n',
            'model = " "\n',
            'fallbacks = ["m", 1]\n',
            "responses = 3\n",
            "x = 1979-05-27\n",
            "= = =\n",
            "[models.'\\u0000']\n",
            'support = "a.b:c"\n',
            "\ufeff",
        ]
    ),
    max_size=12,
).map("".join)


@fuzzed(200)
@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_any_environment_is_settings_or_one_sentence(environ: dict[str, str]) -> None:
    try:
        found = Settings.from_environ(environ)
    except SettingsError as error:
        said = str(error)
        assert said
        assert any(name in said for name in environ), said
        return
    assert isinstance(found, Settings)


@fuzzed(200)
@given(st.one_of(TOML.map(str.encode), st.binary(max_size=100)))
def test_any_catalogue_is_models_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, text: bytes
) -> None:
    path = _scratch(tmp_path_factory)
    path.write_bytes(text)
    try:
        Settings.from_environ({"UPSTREAMS": str(path)})
    except SettingsError as error:
        said = str(error)
    else:
        return
    assert path.name in said or "MODEL" in said or "RUNNABLES" in said


NAMES_OF_MODELS = st.one_of(
    st.sampled_from(["a", "gpt-5-mini", "a.b", "a/b:c", "A B", "", "\x7f", "x" * 201, '"', "\\", "#"]), TEXTS
)
TEXTS_OF_TOML = st.one_of(
    st.sampled_from(["a", "http://h/v1", "https://h:1/v1", "http://[", "m", " ", ""]), TEXTS
)
NUMBERS_OF_TOML = st.sampled_from([0, 1, -1, 0.25, 1e6, 1e7, float("nan"), float("inf"), True, 10**30])
ANY_OF_TOML = st.one_of(TEXTS_OF_TOML, NUMBERS_OF_TOML, st.lists(TEXTS_OF_TOML, max_size=2))
UPSTREAM_TABLES = near(
    [{"base_url": "http://127.0.0.1:1/v1"}, {"base_url": "https://h/v1", "key": "A_KEY", "responses": True}],
    {
        "base_url": TEXTS_OF_TOML,
        "key": st.sampled_from(["A_KEY", "NO_KEY", "ODD_KEY"]),
        "proxy": st.booleans(),
    },
    ANY_OF_TOML,
)
MODEL_TABLES = near(
    [{"upstream": "u"}, {"upstream": "u", "model": "there", "price_in": 1, "price_out": 0.5}],
    {
        "upstream": st.sampled_from(["u", "v", ""]),
        "model": TEXTS_OF_TOML,
        "fallbacks": st.lists(NAMES_OF_MODELS, max_size=2),
        "price_in": NUMBERS_OF_TOML,
        "price_out": NUMBERS_OF_TOML,
    },
    ANY_OF_TOML,
)
CATALOGUES = st.fixed_dictionaries(
    {
        "upstreams": st.one_of(
            st.builds(lambda first, rest: {"u": first, **rest}, UPSTREAM_TABLES, st.just({})),
            st.dictionaries(NAMES_OF_MODELS, UPSTREAM_TABLES, max_size=2).map(
                lambda rest: {"u": {"base_url": "http://127.0.0.1:1/v1"}, **rest}
            ),
        ),
        "models": st.one_of(
            st.dictionaries(NAMES_OF_MODELS, MODEL_TABLES, min_size=1, max_size=3),
            st.just({"a": {"upstream": "u", "fallbacks": ["b"]}, "b": {"upstream": "u"}}),
            ANY_OF_TOML,
        ),
    },
    optional={
        "runnables": st.one_of(
            st.just({"a": "b.c:d"}), st.dictionaries(NAMES_OF_MODELS, ANY_OF_TOML, max_size=2)
        )
    },
)
KEYS = {"A_KEY": "sk-a", "ODD_KEY": "sk a"}


@fuzzed(100)
@given(CATALOGUES)
def test_a_catalogue_that_is_taken_is_what_the_file_says(
    tmp_path_factory: pytest.TempPathFactory, said: dict[str, Any]
) -> None:
    path = _scratch(tmp_path_factory)
    path.write_bytes("\n".join(f"{_toml(name)} = {_toml(value)}" for name, value in said.items()).encode())
    found, error = attempt(lambda: read_catalogue(str(path), KEYS), SettingsError)
    if error is not None:
        assert path.name in str(error)
        assert any(f" {table}" in str(error) or f"[{table}" in str(error) for table in said), error
        assert "sk-a" not in str(error)
        assert "sk a" not in str(error)
        return
    models, runnables = found
    assert [model.name for model in models] == list(said["models"])
    for model, table in zip(models, said["models"].values(), strict=True):
        upstream = said["upstreams"][table["upstream"]]
        assert model.upstream.name == table["upstream"]
        assert model.upstream.base_url == upstream["base_url"]
        assert model.upstream.key == KEYS.get(upstream.get("key", ""), "")
        assert model.name_there == table.get("model", model.name)
        assert list(model.fallbacks) == table.get("fallbacks", [])
        price = model.price and (model.price.tokens_in, model.price.tokens_out)
        assert price == ((table["price_in"], table["price_out"]) if "price_in" in table else None)
    given_runnables = tuple(f"{name}={place}" for name, place in said.get("runnables", {}).items())
    assert runnables == (given_runnables or (("none",) if "runnables" in said else ()))


def _toml(value: Any) -> str:
    """Return a value as TOML says it, on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(name)} = {_toml(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    return json.dumps(value).replace("\x7f", "\\u007f") if value.isascii() else _quoted(value)


def _quoted(text: str) -> str:
    return '"' + "".join(f"\\U{ord(char):08x}" for char in text) + '"'


def _scratch(factory: pytest.TempPathFactory) -> Path:
    return factory.getbasetemp() / "fuzzed.toml"
