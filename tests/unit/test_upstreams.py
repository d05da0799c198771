"""A file of upstreams and models is read whole, or stops the start saying where it is wrong."""

from dataclasses import replace
from pathlib import Path

import pytest

from streaming.errors import SettingsError
from streaming.settings import Settings
from streaming.upstreams import ModelSettings, UpstreamSettings

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = (REPOSITORY / "upstreams.example.toml").read_text()
README = (REPOSITORY / "README.md").read_text().partition("```toml\n")[2].partition("```")[0]
SECRET = "sk-s3cret"

GOOD = """
[upstreams.near]
base_url = "http://127.0.0.1:1111/v1"
[upstreams.far]
base_url = "https://models.example/v1"
key = "FAR_KEY"
responses = true
proxy = false
[models.second]
upstream = "far"
model = "org/second-2026"
fallbacks = ["first", "third"]
[models.first]
upstream = "near"
[models.third]
upstream = "near"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "upstreams.toml"


def read(file: Path, text: str | bytes = GOOD, **environ: str) -> Settings:
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return Settings.from_environ({"UPSTREAMS": str(file), "FAR_KEY": SECRET, **environ})


def refused(file: Path, text: str | bytes = GOOD, **environ: str) -> str:
    """Return the sentence a file is refused with, the file's directory taken out."""
    with pytest.raises(SettingsError) as error:
        read(file, text, **environ)
    sentence = str(error.value)
    assert "\n" not in sentence
    assert SECRET not in sentence
    return sentence.replace(f"{file.parent}/", "")


def test_a_file_is_read_in_its_order(file: Path) -> None:
    near = UpstreamSettings("near", "http://127.0.0.1:1111/v1")
    far = UpstreamSettings("far", "https://models.example/v1", SECRET, True, False)

    settings = read(file)

    assert settings.catalogue == (
        ModelSettings("second", far, "org/second-2026", ("first", "third")),
        ModelSettings("first", near, "first"),
        ModelSettings("third", near, "third"),
    )
    assert settings.models == ("second", "first", "third")
    assert settings.default_model == "second"
    assert not settings.is_demo
    assert settings.upstreams_shown == "https://models.example/v1, http://127.0.0.1:1111/v1"


@pytest.mark.parametrize("example", [EXAMPLE, README], ids=["file", "readme"])
def test_the_examples_are_right(file: Path, example: str) -> None:
    settings = read(file, example, OPENAI_API_KEY=SECRET)

    assert settings.models == ("gpt-5-mini", "small")
    assert settings.catalogue[0].upstream.key == SECRET
    assert settings.catalogue[0].fallbacks == ("small",)


def test_another_model_can_be_the_default(file: Path) -> None:
    assert read(file, MODEL="third").default_model == "third"
    assert refused(file, MODEL="x").startswith("MODEL: 'x' is not one of the models of upstreams.toml")


def test_the_variables_of_one_upstream_are_not_looked_at(file: Path) -> None:
    settings = read(
        file, OPENAI_API_KEY="sk-other", OPENAI_BASE_URL="http://other/v1", UPSTREAM_RESPONSES="no"
    )

    assert {model.upstream.name for model in settings.catalogue} == {"near", "far"}
    assert "sk-other" not in {model.upstream.key for model in settings.catalogue}


def test_models_cannot_be_said_twice(file: Path) -> None:
    assert refused(file, MODELS="first").startswith("MODELS: ")


def test_no_repr_shows_a_key(file: Path) -> None:
    settings = read(file)

    assert SECRET not in repr(settings)
    assert SECRET not in repr(settings.catalogue)
    assert SECRET not in repr(settings.catalogue[0].upstream)
    assert SECRET not in settings.upstreams_shown


def test_settings_with_a_catalogue_can_be_changed_in_other_points(file: Path) -> None:
    assert replace(read(file), max_streams=3).models == ("second", "first", "third")


NEAR = '[upstreams.near]\nbase_url = "http://127.0.0.1:1/v1"\n'
MODEL = '[models.m]\nupstream = "near"\n'

MISTAKES: dict[str, tuple[str, str]] = {
    "nothing": ("", "upstreams.toml: upstreams: "),
    "no upstream": (MODEL, "upstreams.toml: upstreams: "),
    "no model": (NEAR, "upstreams.toml: models: "),
    "upstreams that are no table": (f'upstreams = "near"\n{MODEL}', "upstreams.toml: upstreams: "),
    "models that are no table": (f"models = 1\n{NEAR}", "upstreams.toml: models: "),
    "a list of upstreams": (f'[[upstreams]]\nname = "near"\n{MODEL}', "upstreams.toml: upstreams: "),
    "an upstream that is no table": (
        f"[upstreams]\nnear = 1\n{MODEL}",
        "upstreams.toml: [upstreams.near]: expected `object`",
    ),
    "a model that is no table": (
        f"[models]\nm = [1]\n{NEAR}",
        "upstreams.toml: [models.m]: expected `object`",
    ),
    "another table": (f"{NEAR}{MODEL}[limits]\n", "upstreams.toml: there is no table or field 'limits'"),
    "no URL": (f"[upstreams.near]\n{MODEL}", "upstreams.toml: [upstreams.near] base_url: it is missing"),
    "a URL of another type": (
        f"[upstreams.near]\nbase_url = 1\n{MODEL}",
        "upstreams.toml: [upstreams.near] base_url: expected `str`",
    ),
    "a bad URL": (
        f'[upstreams.near]\nbase_url = "localhost:1"\n{MODEL}',
        "upstreams.toml: [upstreams.near] base_url: 'localhost:1' is not a URL",
    ),
    "a key in the URL": (
        f'[upstreams.near]\nbase_url = "https://{SECRET}@host/v1"\n{MODEL}',
        "upstreams.toml: [upstreams.near] base_url: put the key in a variable",
    ),
    "a query in the URL": (
        f'[upstreams.near]\nbase_url = "https://host/v1?key={SECRET}"\n{MODEL}',
        "upstreams.toml: [upstreams.near] base_url: ",
    ),
    "a key of another type": (
        f"{NEAR}key = 7\n{MODEL}",
        "upstreams.toml: [upstreams.near] key: expected `str",
    ),
    "a variable that is not set": (
        f'{NEAR}key = "NO_KEY"\n{MODEL}',
        "upstreams.toml: [upstreams.near] key: ",
    ),
    "a variable without a name": (f'{NEAR}key = ""\n{MODEL}', "upstreams.toml: [upstreams.near] key: "),
    "a key where its variable's name belongs": (
        f'{NEAR}key = "{SECRET}"\n{MODEL}',
        "upstreams.toml: [upstreams.near] key: ",
    ),
    "a field of an upstream that nobody knows": (
        f'{NEAR}api_key = "{SECRET}"\n{MODEL}',
        "upstreams.toml: [upstreams.near] api_key: there is no such field; known: base_url, key, "
        "responses, proxy",
    ),
    "responses of another type": (
        f'{NEAR}responses = "yes"\n{MODEL}',
        "upstreams.toml: [upstreams.near] responses: expected `bool",
    ),
    "proxy of another type": (
        f'{NEAR}proxy = "no"\n{MODEL}',
        "upstreams.toml: [upstreams.near] proxy: expected `bool",
    ),
    "a model of no upstream": (f"{NEAR}[models.m]\n", "upstreams.toml: [models.m] upstream: it is missing"),
    "a model of an unknown upstream": (
        f'{NEAR}[models.m]\nupstream = "far"',
        "upstreams.toml: [models.m] upstream: no upstream is called 'far'; known: near",
    ),
    "a model that is called nothing there": (
        f'{NEAR}{MODEL}model = " "',
        "upstreams.toml: [models.m] model: it is empty",
    ),
    "a model's name of another type": (
        f"{NEAR}{MODEL}model = 5.1",
        "upstreams.toml: [models.m] model: expected `str",
    ),
    "a field of a model that nobody knows": (
        f'{NEAR}{MODEL}fallback = "x"',
        "upstreams.toml: [models.m] fallback: there is no such field; known: upstream, model, fallbacks",
    ),
    "fallbacks that are no list": (
        f'{NEAR}{MODEL}fallbacks = "x"',
        "upstreams.toml: [models.m] fallbacks: expected `array`",
    ),
    "a fallback of another type": (
        f'{NEAR}{MODEL}fallbacks = ["m", 2]',
        "upstreams.toml: [models.m] fallbacks[1]: expected `str`",
    ),
    "a fallback to an unknown model": (
        f'{NEAR}{MODEL}fallbacks = ["x"]\n[models.n]\nupstream = "near"',
        "upstreams.toml: [models.m] fallbacks: no model is called 'x'; known: n",
    ),
    "a fallback to itself": (
        f'{NEAR}{MODEL}fallbacks = ["m"]',
        "upstreams.toml: [models.m] fallbacks: 'm' is the model itself",
    ),
    "a fallback twice": (
        f'{NEAR}{MODEL}fallbacks = ["n", "n"]\n[models.n]\nupstream = "near"',
        "upstreams.toml: [models.m] fallbacks: 'n' is named twice",
    ),
    "a name that is quoted": (
        f'{NEAR}[models."org/m-1.5"]\nupstream = "far"',
        'upstreams.toml: [models."org/m-1.5"] upstream: ',
    ),
    # It would have to stand in a header.
    "a name with a line end": (
        f'{NEAR}[models."m\\n"]\nupstream = "near"',
        "upstreams.toml: [models.'m\\n']: ",
    ),
    "a name in another alphabet": (f'{NEAR}[models."модель"]\nupstream = "near"', "upstreams.toml: [models."),
    "a name that is empty": (f'{NEAR}[models.""]\nupstream = "near"', "upstreams.toml: [models.'']: "),
    "a table twice": (f"{NEAR}{MODEL}{MODEL}", "UPSTREAMS: upstreams.toml cannot be read: "),
    "not TOML": ("{", "UPSTREAMS: upstreams.toml cannot be read: "),
    "nested deep": (f"x = {'[' * 100_000}", "UPSTREAMS: upstreams.toml cannot be read: "),
    "large": ("#" * 1_100_000, "UPSTREAMS: upstreams.toml is larger than"),
}


@pytest.mark.parametrize(("text", "sentence"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_stops_the_start_and_is_named(file: Path, text: str, sentence: str) -> None:
    assert refused(file, text).startswith(sentence)


def test_a_file_that_is_not_text_is_refused(file: Path) -> None:
    assert refused(file, b"\xff\xfe\x00").startswith("UPSTREAMS: upstreams.toml cannot be read: ")


@pytest.mark.parametrize("path", ["/nowhere/upstreams.toml", "/", "a\0b", "x" * 5000])
def test_a_file_that_cannot_be_opened_is_refused(path: str) -> None:
    with pytest.raises(SettingsError, match=r"UPSTREAMS: .* cannot be read: "):
        Settings.from_environ({"UPSTREAMS": path})


@pytest.mark.parametrize("key", ["", "  ", "two words", "line\nend"])
def test_a_key_that_cannot_be_sent_is_refused(file: Path, key: str) -> None:
    assert refused(file, FAR_KEY=key).startswith("upstreams.toml: [upstreams.far] key: ")
