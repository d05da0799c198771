"""``POST /v1/embeddings``."""

from typing import Any, Literal

from msgspec import Struct

from streaming.openapi import Answer, Body, Operation


class EmbeddingRequest(Struct):
    """What is looked at here; everything is passed on."""

    model: str
    input: str | list[Any]


class Embeddings(Struct):
    """Vectors, as OpenAI's API has them."""

    object: Literal["list"]
    data: list[dict[str, Any]]
    model: str
    usage: dict[str, Any] | None = None


OPERATIONS = (
    Operation(
        "POST",
        "/v1/embeddings",
        "createEmbedding",
        "OpenAI",
        "Make vectors of texts",
        "Passed through to the upstream of the model. It is no run, and nothing is kept.",
        (),
        Body(
            EmbeddingRequest,
            {
                "One text": {"model": "demo", "input": "How do I resume a stream?"},
                "Several texts": {"model": "demo", "input": ["tea", "coffee"], "dimensions": 64},
            },
        ),
        {200: Answer("The vectors.", {"application/json": Embeddings})},
        (400, 404, 413, 415, 501, 502, 504),
        dialect="openai",
    ),
)
