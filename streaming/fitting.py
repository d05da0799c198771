"""Make a request fit what its sender may use, or refuse it, naming the field. Nothing was done yet."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from streaming.allowances import Allowance
from streaming.errors import InvalidRequest
from streaming.sources import Prompt

IMAGES = ("image_url", "input_image", "image")
OUTPUT = ("max_completion_tokens", "max_tokens")


def check_model(model: str, allowance: Allowance) -> None:
    """Refuse what may not be named as one refuses what is not there. Raises `InvalidRequest`."""
    if allowance.models and model not in allowance.models:
        raise InvalidRequest(
            f"no model is called {model[:100]!r}; known: {', '.join(allowance.models)}",
            code="unknown_model",
            param="model",
        )


def fit(prompt: Prompt, allowance: Allowance, output_field: str) -> Prompt:
    """Return the prompt with as much output as is allowed. Raises `InvalidRequest` for what is too much.

    ``output_field`` is the name by which the model's upstream is told a limit that
    nobody asked for; "" for what takes none, such as a runnable.
    """
    check_model(prompt.model, allowance)
    field, messages = ("messages", prompt.messages)
    if prompt.response is not None:
        field, messages = ("input", prompt.response.get("input") or [])
    _check_count(field, "messages", len(messages), allowance.messages)
    if allowance.images:
        images = sum(1 for _ in _images(messages if prompt.input is None else [messages, prompt.input]))
        _check_count(field, "images", images, allowance.images)
    if not allowance.max_output_tokens:
        return prompt
    if prompt.response is not None:
        limited = limit_output(prompt.response, allowance, ("max_output_tokens",), "max_output_tokens")
        return msgspec.structs.replace(prompt, response=limited)
    return msgspec.structs.replace(
        prompt, params=limit_output(prompt.params, allowance, OUTPUT, output_field)
    )


def limit_output(
    said: Mapping[str, Any], allowance: Allowance, names: tuple[str, ...], otherwise: str = ""
) -> dict[str, Any]:
    """Return the parameters, no number under ``names`` over what is allowed.

    Lowered, not refused: clients ask for the most a model can do without meaning
    it, and an answer that is cut says so (``length``). With none of them there,
    the one called ``otherwise`` is set.
    """
    most = allowance.max_output_tokens
    if not most:
        return dict(said)
    told = {name: value for name, value in said.items() if name not in names or value is not None}
    asked = [name for name in names if name in told]
    for name in asked:
        value = told[name]
        if isinstance(value, int | float) and not isinstance(value, bool) and value > most:
            told[name] = most
    if not asked and otherwise:
        told[otherwise] = most
    return told


def _check_count(field: str, of: str, count: int, most: int) -> None:
    if most and count > most:
        raise InvalidRequest(
            f"{field}: {count} {of}, at most {most}", code="too_many", param=field, status=413
        )


def _images(value: Any) -> Iterator[Any]:
    """Yield the images in messages, items or a runnable's input; they are nested as deep as JSON may be."""
    left = [value]
    while left:
        found = left.pop()
        if isinstance(found, dict):
            if found.get("type") in IMAGES:
                yield found
            else:
                left.extend(each for each in found.values() if isinstance(each, dict | list))
        elif isinstance(found, list):
            left.extend(each for each in found if isinstance(each, dict | list))
