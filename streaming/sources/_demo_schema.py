"""A value that is valid for a JSON schema, made from the words and numbers of a prompt."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

Schema = Mapping[str, Any]

# Deeper than this only what is required is filled, so a recursive schema comes to an end.
_DEPTH = 6

# A schema is written by a stranger: these bound the time and the memory it can cost.
_MAX_DEPTH = 50
_MAX_VALUES = 5_000
_MAX_LENGTH = 10_000

_WHOLE_PROMPT = {"input", "message", "prompt", "q", "query", "question", "search", "text"}

_FILLER = re.compile(
    r"a|about|all|an|and|are|as|at|be|both|call|can|could|do|does|find|for|from|get|give|had|has|have|"
    r"how|i|if|in|is|it|its|like|me|my|of|on|one|or|parallel|please|show|so|some|tell|than|that|the|"
    r"their|them|then|there|these|they|this|to|use|using|was|we|were|what|what's|when|where|which|who|"
    r"why|will|with|would|you|your",
    re.IGNORECASE,
)

_FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT1H",
    "email": "demo@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}

_PATTERN_GUESSES = (
    "a",
    "A",
    "ab",
    "AB",
    "abc",
    "ABC",
    "abc-123",
    "ABC-123",
    "1",
    "12",
    "123",
    "1234",
    "12345",
)


class Example:
    """Makes one value for a schema; each string and number takes the prompt's next word or number.

    Source: JSON Schema 2020-12, the keywords OpenAI's structured outputs know. A
    ``pattern`` is met only when one of a few plain guesses meets it.

    >>> schema = {"properties": {"city": {"type": "string"}}, "required": ["city"]}
    >>> Example(schema, "What is the weather in Paris?").value()
    {'city': 'Paris'}
    """

    def __init__(self, schema: Schema, prompt: str) -> None:
        self._root = schema
        self._prompt = " ".join(prompt.split())[:200]
        self._words = _telling_words(prompt)
        self._numbers = [
            float(number) for number in re.findall(r"(?<![\w.])-?\d{1,15}(?:\.\d{1,6})?", prompt)
        ]
        self._words_taken = 0
        self._numbers_taken = 0
        self._values_made = 0

    def value(self) -> Any:
        """Return the value; the same schema and prompt give the same value.

        Raises ``ValueError`` for what is no schema, or one without an end in sight.
        """
        try:
            return self._any(self._root, "", 0)
        except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
            raise ValueError(f"not a JSON schema the demo model understands: {error}") from error

    def _any(self, schema: Schema | bool, name: str, depth: int) -> Any:
        self._values_made += 1
        if self._values_made > _MAX_VALUES:
            raise ValueError(f"the JSON schema demands more than {_MAX_VALUES} values")
        if isinstance(schema, bool):
            return self._word() if schema else None
        schema = self._resolved(schema, depth)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return self._choice(schema["enum"])
        match _type(schema):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, name, depth)
            case "integer" | "number" as kind:
                return self._number(schema, whole=kind == "integer")
            case "boolean":
                return True
            case "null":
                return None
            case _:
                return self._string(schema, name)

    def _resolved(self, schema: Schema, depth: int) -> Schema:
        """Follow ``$ref``, merge ``allOf`` and take one option, until no such keyword is left."""
        if depth > _MAX_DEPTH:
            raise ValueError(f"the JSON schema is nested more than {_MAX_DEPTH} deep")
        for _ in range(100):  # a $ref that leads to itself has no value
            if "$ref" in schema:
                schema = _merged(_without(schema, "$ref"), self._referred(schema["$ref"]))
            elif "allOf" in schema:
                for part in schema["allOf"]:
                    schema = _merged(_without(schema, "allOf"), self._resolved(part, depth + 1))
            elif options := schema.get("anyOf") or schema.get("oneOf"):
                option = _option(options, deep=depth > _DEPTH)
                schema = _merged(_without(schema, "anyOf", "oneOf"), option)
            else:
                break
        return schema

    def _referred(self, reference: str) -> Schema:
        found: Any = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            found = found.get(step, {}) if isinstance(found, Mapping) else {}
        return cast(Schema, found) if isinstance(found, Mapping) else {}

    def _object(self, schema: Schema, depth: int) -> dict[str, Any]:
        properties: Schema = schema.get("properties", {})
        names: Sequence[str] = schema.get("required", ())
        if not names and depth <= _DEPTH:
            names = list(properties)
        return {name: self._any(properties.get(name, True), name, depth + 1) for name in names}

    def _array(self, schema: Schema, name: str, depth: int) -> list[Any]:
        first: Sequence[Schema] = schema.get("prefixItems", ())
        rest = schema.get("items", True)
        least = schema.get("minItems", 0)
        if least > _MAX_VALUES:
            raise ValueError(f"the JSON schema demands more than {_MAX_VALUES} values")
        usual = least if depth > _DEPTH or rest is False else 2
        length = min(max(usual, least, len(first)), schema.get("maxItems", math.inf))
        items = [*first, *[rest] * int(length - len(first))][: int(length)]
        values = [self._any(item, name, depth + 1) for item in items]
        if schema.get("uniqueItems"):
            unique = [value for at, value in enumerate(values) if value not in values[:at]]
            return unique if len(unique) >= least else values
        return values

    def _string(self, schema: Schema, name: str) -> str:
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        text = self._prompt if name.lower() in _WHOLE_PROMPT and self._prompt else self._word()
        if pattern := schema.get("pattern"):
            guesses = (text, *_PATTERN_GUESSES)
            text = next((guess for guess in guesses if _matches(pattern, guess)), text)
        return text.ljust(min(schema.get("minLength", 0), _MAX_LENGTH), "o")[: schema.get("maxLength")]

    def _number(self, schema: Schema, whole: bool) -> int | float:
        least = schema.get("minimum", -math.inf)
        most = schema.get("maximum", math.inf)
        step = schema.get("multipleOf", 1 if whole else 0)
        above = schema.get("exclusiveMinimum", -math.inf)
        below = schema.get("exclusiveMaximum", math.inf)

        def fits(number: float) -> bool:
            if step and not math.isclose(number / step, round(number / step), abs_tol=1e-9):
                return False
            return least <= number <= most and above < number < below and not (whole and number % 1)

        asked = self._next_number()
        floor, ceiling = max(least, above), min(most, below)
        guesses = [asked, 1.0, 0.0, floor, ceiling, floor + 1, ceiling - 1, (floor + ceiling) / 2]
        if step:
            near = [bound // step * step for bound in (floor, ceiling) if math.isfinite(bound)]
            guesses += [step, *near, *[bound + step for bound in near]]
        number = next((guess for guess in guesses if math.isfinite(guess) and fits(guess)), asked)
        return int(number) if whole or number == int(number) else number

    def _choice(self, options: Sequence[Any]) -> Any:
        """Prefer the option the prompt names."""
        spoken = self._prompt.lower()
        return next(
            (option for option in options if isinstance(option, str) and option.lower() in spoken), options[0]
        )

    def _word(self) -> str:
        word = self._words[self._words_taken % len(self._words)]
        self._words_taken += 1
        return word

    def _next_number(self) -> float:
        if self._numbers_taken >= len(self._numbers):
            return 1.0
        self._numbers_taken += 1
        return self._numbers[self._numbers_taken - 1]


def _telling_words(prompt: str) -> list[str]:
    """Return the words that carry the meaning, names first; never an empty list.

    >>> _telling_words("What is the weather in Paris and Oslo?")
    ['Paris', 'Oslo', 'weather']
    """
    words = re.findall(r"[^\W\d_][\w'-]*", prompt[:2000])
    telling = [word for word in words if not _FILLER.fullmatch(word)]
    opening = words[0] if words else ""
    names = [word for word in telling if word[0].isupper() and word != opening]
    rest = [word for word in telling if word not in names]
    return list(dict.fromkeys(names + rest)) or ["demo"]


def _type(schema: Schema) -> str:
    """Return the schema's type; of several the first that is not null."""
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "null")
    if kind is None:
        kind = "object" if "properties" in schema else "array" if "items" in schema else "string"
    return str(kind)


def _option(options: Sequence[Schema], deep: bool) -> Schema:
    """Return the first option; deep inside, the first that cannot lead deeper."""
    if not deep:
        return options[0]
    return next(
        (option for option in options if option.get("type") not in (None, "array", "object")), options[0]
    )


def _merged(schema: Schema, other: Schema) -> Schema:
    """Return both schemas' demands as one; where they differ, ``other`` wins."""
    merged = {**schema, **other}
    if "properties" in schema and "properties" in other:
        merged["properties"] = {**schema["properties"], **other["properties"]}
    if "required" in schema and "required" in other:
        merged["required"] = list(dict.fromkeys([*schema["required"], *other["required"]]))
    return merged


def _without(schema: Schema, *keywords: str) -> Schema:
    return {keyword: value for keyword, value in schema.items() if keyword not in keywords}


def _matches(pattern: str, text: str) -> bool:
    if len(text) > 12:  # a pattern can take time exponential in the text
        return False
    try:
        return re.search(pattern, text) is not None
    except re.error:  # written for another regex dialect: met by nothing, refused by nobody
        return True
