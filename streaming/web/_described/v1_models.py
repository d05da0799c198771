"""``/v1/models``."""

from typing import Literal

from msgspec import Struct

from streaming.openapi import Answer, Operation, Parameter
from streaming.sources import Model
from streaming.web._described import _parts as parts


class Models(Struct):
    object: Literal["list"]
    data: list[Model]


OPERATIONS = (
    Operation(
        "GET",
        "/v1/models",
        "listModels",
        "OpenAI",
        "List the models",
        "What `model` may name, runnables among them. The upstream is asked where no setting names any.",
        answers={200: Answer("All of them.", {"application/json": Models})},
        access="read",
        dialect="openai",
    ),
    Operation(
        "GET",
        "/v1/models/{name}",
        "getModel",
        "OpenAI",
        "Show one model",
        parameters=(Parameter("name", "path", "Its name, which may hold slashes.", parts.TEXT),),
        answers={200: Answer("The model.", {"application/json": Model})},
        errors=(404,),
        access="read",
        dialect="openai",
    ),
)
