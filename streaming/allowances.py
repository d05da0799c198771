"""What one principal may use: of the settings, for its kind, and of its key's own limits."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from streaming.errors import InvalidRequest
from streaming.principals import Principal
from streaming.settings import Settings


class Allowance(Struct, frozen=True, forbid_unknown_fields=True):
    """How much; 0 is no limit, and so is an empty list. The names are those of a key's limits."""

    running: int = 0
    """Streams at the same time."""
    creates_per_minute: int = 0
    readers_per_stream: int = 0
    readers: int = 0
    """Of all its streams together."""
    polls_per_second: int = 0
    tokens_per_day: int = 0
    bytes_per_day: int = 0
    cost_per_day: float = 0.0
    max_output_tokens: int = 0
    messages: int = 0
    """In one request."""
    images: int = 0
    models: tuple[str, ...] = ()
    """What it may name; others do not exist for it. A runnable is a model too."""


def check_limits(limits: Mapping[str, Any]) -> None:
    """Refuse limits of a key that are none. Raises `InvalidRequest` with the field."""
    try:
        found = msgspec.convert(dict(limits), Allowance)
    except msgspec.ValidationError as error:
        said, _, place = str(error).partition(" - at `$")
        name = place.strip("`.") or "limits"
        known = ", ".join(Allowance.__struct_fields__)
        if "unknown field" in said:
            said = f"{said}; known: {known}"
        raise InvalidRequest(f"{name}: {said}", code="wrong_value", param=name) from None
    for name in Allowance.__struct_fields__:
        value = getattr(found, name)
        if isinstance(value, int | float) and not 0 <= value < float("inf"):
            raise InvalidRequest(f"{name}: {value} is not 0 or more", code="wrong_value", param=name)


def allowance_of(principal: Principal, settings: Settings) -> Allowance:
    """Return what it may use. In the open mode only what goes for every request is limited."""
    if principal.kind in ("open", "none"):
        return Allowance(max_output_tokens=settings.max_output_tokens, images=settings.max_images)
    standard = _of_visitor(settings) if principal.kind == "visitor" else _of_principal(settings)
    if not principal.limits:
        return standard
    own = {name: value for name, value in principal.limits.items() if name in Allowance.__struct_fields__}
    try:
        return msgspec.convert(msgspec.structs.asdict(standard) | own, Allowance)
    except msgspec.ValidationError:
        # Whoever wrote it was told; a limit that cannot be read must not mean that there is none.
        return standard


def _of_principal(settings: Settings) -> Allowance:
    return Allowance(
        running=settings.running_per_principal,
        creates_per_minute=settings.creates_per_minute,
        readers_per_stream=settings.readers_per_stream,
        readers=settings.readers_per_principal,
        polls_per_second=settings.polls_per_second,
        tokens_per_day=settings.tokens_per_day,
        bytes_per_day=settings.bytes_per_day,
        cost_per_day=settings.cost_per_day,
        max_output_tokens=settings.max_output_tokens,
        images=settings.max_images,
    )


def _of_visitor(settings: Settings) -> Allowance:
    return Allowance(
        running=settings.visitor_running,
        creates_per_minute=settings.visitor_creates_per_minute,
        readers_per_stream=settings.visitor_readers,
        readers=settings.visitor_readers,
        polls_per_second=settings.polls_per_second,
        tokens_per_day=settings.visitor_tokens_per_day,
        max_output_tokens=_least(settings.visitor_max_output_tokens, settings.max_output_tokens),
        images=_least(settings.visitor_max_images, settings.max_images),
    )


def _least(*limits: int) -> int:
    """Return the smallest limit, where 0 is none.

    >>> _least(0, 5), _least(3, 5), _least(0, 0)
    (5, 3, 0)
    """
    return min((limit for limit in limits if limit), default=0)
