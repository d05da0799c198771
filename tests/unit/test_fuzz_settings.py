"""Settings and the catalogue under arbitrary text: a value, or a sentence that names the setting."""

from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.errors import SettingsError
from streaming.settings import Settings
from tests.fuzzing import TEXTS, fuzzed

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


def _scratch(factory: pytest.TempPathFactory) -> Path:
    return factory.getbasetemp() / "fuzzed.toml"
