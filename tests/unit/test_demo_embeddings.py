"""The demo model's embeddings, through the real SDK: near where texts share their words."""

import asyncio
import base64
import math
import struct
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest

from streaming.sources import _demo_embeddings
from streaming.sources._demo import MODEL, AsyncDemoTransport, DemoTransport

PARAGRAPHS = {
    "cats": "A cat sleeps for most of the day. Cats purr when they are content, and hunt mice at night.",
    "bread": "Knead flour, water, salt and yeast; let the dough rise for an hour, then bake the bread.",
    "rivers": "The river begins at a spring in the mountains, and flows past three towns into the sea.",
    "chess": "In chess a bishop moves along the diagonals, and a knight jumps; the game ends with checkmate.",
    "tax": "Income is taxed by the year: whoever earns more pays a higher rate, less what was deducted.",
    "東京": "東京は日本の首都で、世界で最も人口の多い都市圏です。",
}
QUESTIONS = {
    "When do cats hunt?": "cats",
    "How long must the dough rise before I bake bread?": "bread",
    "Where does the river flow to?": "rivers",
    "Which way does a bishop move in a game of chess?": "chess",
    "What rate of tax do I pay on my yearly income?": "tax",
    "日本の首都は?": "東京",
}


@pytest.fixture
def sdk() -> Iterator[openai.OpenAI]:
    http_client = openai.DefaultHttpx2Client(transport=DemoTransport(tokens_per_second=0))
    with openai.OpenAI(
        api_key="demo", base_url="http://demo/v1", http_client=http_client, max_retries=0
    ) as made:
        yield made


def vectors(sdk: openai.OpenAI, texts: Any, **options: Any) -> list[list[float]]:
    return [each.embedding for each in sdk.embeddings.create(model=MODEL, input=texts, **options).data]


def nearness(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("dimensions", [256, 1536])
@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_is_nearest_to_the_paragraph_that_answers_it(
    sdk: openai.OpenAI, question: str, dimensions: int
) -> None:
    asked, *known = vectors(sdk, [question, *PARAGRAPHS.values()], dimensions=dimensions)
    near = {name: nearness(asked, vector) for name, vector in zip(PARAGRAPHS, known, strict=True)}
    assert max(near, key=lambda name: near[name]) == QUESTIONS[question], near
    others = [each for name, each in near.items() if name != QUESTIONS[question]]
    assert near[QUESTIONS[question]] > max(others) + 0.05


def test_the_same_words_in_other_forms_are_near(sdk: openai.OpenAI) -> None:
    one, other, strange = vectors(sdk, ["Stop the streams!", "it stopped streaming", "bake some bread"])
    assert nearness(one, other) > 0.9
    assert nearness(one, strange) < 0.3


def test_a_vector_is_normalised_and_always_the_same(sdk: openai.OpenAI) -> None:
    once, again = vectors(sdk, ["to be or not", "to be or not"])
    assert once == again == vectors(sdk, "to be or not")[0]
    assert len(once) == 256
    assert math.isclose(nearness(once, once), 1, abs_tol=1e-6)


@pytest.mark.parametrize("text", ["!?", " ", "\n", "🧵", "the", "\0"])
def test_a_text_without_words_has_a_vector_too(sdk: openai.OpenAI, text: str) -> None:
    (vector,) = vectors(sdk, text)
    assert math.isclose(nearness(vector, vector), 1, abs_tol=1e-6)


@pytest.mark.parametrize("dimensions", [1, 3, 1024, 4096])
def test_the_dimensions_are_those_asked_for(sdk: openai.OpenAI, dimensions: int) -> None:
    (vector,) = vectors(sdk, "hello world", dimensions=dimensions)
    assert len(vector) == dimensions
    assert math.isclose(nearness(vector, vector), 1, abs_tol=1e-6)


def test_base64_and_floats_hold_the_same_numbers(sdk: openai.OpenAI) -> None:
    body = {"model": MODEL, "input": "hello world"}
    plain: Any = sdk.post("/embeddings", body={**body, "encoding_format": "float"}, cast_to=object)
    coded: Any = sdk.post("/embeddings", body={**body, "encoding_format": "base64"}, cast_to=object)
    raw = base64.b64decode(coded["data"][0]["embedding"])
    assert list(struct.unpack("<256f", raw)) == plain["data"][0]["embedding"]
    assert vectors(sdk, "hello world") == [plain["data"][0]["embedding"]], "what the SDK asks for is base64"


def test_tokens_are_embedded_like_words(sdk: openai.OpenAI) -> None:
    one, other = vectors(sdk, [[1, 2, 3], [7, 8, 9]])
    assert vectors(sdk, [1, 2, 3]) == [one]
    assert nearness(one, other) < 0.5


def test_the_answer_has_an_entry_for_each_input_and_a_usage(sdk: openai.OpenAI) -> None:
    answer = sdk.embeddings.create(model=MODEL, input=["hello big world", "bye"])
    assert [each.index for each in answer.data] == [0, 1]
    assert {each.object for each in answer.data} == {"embedding"}
    assert (answer.object, answer.model) == ("list", MODEL)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 4
    assert sdk.embeddings.create(model=MODEL, input=[[5, 6], [7]]).usage.prompt_tokens == 3


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": [""]}, "input"),
        ({"input": [[]]}, "input"),
        ({"input": ["a", 1]}, "input"),
        ({"input": [[1], "a", 2]}, "input"),
        ({"input": {"text": "a"}}, "input"),
        ({"input": "word " * 9000}, "input"),
        ({"input": "x" * 1_000_000}, "input"),
        ({"input": ["x"] * 2049}, "input"),
        ({"input": ["word " * 8000] * 13}, "input"),
        ({"input": ["x"] * 1000, "dimensions": 4096}, "input"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": 10**9}, "dimensions"),
        ({"dimensions": 1.5}, "dimensions"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"model": 5}, "model"),
    ],
)
def test_a_bad_request_is_refused_by_the_name_of_its_field(
    sdk: openai.OpenAI, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.post("/embeddings", body={"model": MODEL, "input": "hi", **fields}, cast_to=object)
    assert refused.value.param == param


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"input":' + b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    with httpx2.Client(transport=DemoTransport(0)) as http:
        assert http.post("http://demo/v1/embeddings", content=body).status_code == 400


def test_the_most_it_takes_at_once_is_answered() -> None:
    words = " ".join(f"word{number}" for number in range(_demo_embeddings.MAX_TOKENS_AN_INPUT - 1))
    with httpx2.Client(transport=DemoTransport(0), timeout=20) as http:
        answer = http.post("http://demo/v1/embeddings", json={"model": MODEL, "input": [words] * 12})
    assert answer.status_code == 200


def test_the_asynchronous_sdk_gets_the_same(sdk: openai.OpenAI) -> None:
    async def ask() -> list[float]:
        http_client = openai.DefaultAsyncHttpx2Client(transport=AsyncDemoTransport(0))
        async with openai.AsyncOpenAI(
            api_key="demo", base_url="http://demo/v1", http_client=http_client
        ) as client:
            answer = await client.embeddings.create(model=MODEL, input="hello world")
            return answer.data[0].embedding

    assert asyncio.run(ask()) == vectors(sdk, "hello world")[0]
