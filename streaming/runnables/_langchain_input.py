"""What a runnable is given: its input and its configuration, out of a prompt.

A prompt with ``input`` is given as it stands. Else the messages are made into
what the runnable's input schema asks for: a text (the user's last), a list of
messages, or a dict whose keys are filled with either.
"""

import functools
from collections.abc import Mapping
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig
from pydantic import ValidationError

from streaming.errors import InvalidRequest
from streaming.runnables._langchain_objects import decoded, messages_of
from streaming.sources import Prompt

CONVERSATION_KEYS = ("messages", "conversation")
HISTORY_KEYS = ("history", "chat_history", "past_messages")
TEXT_KEYS = ("question", "input", "query", "prompt", "text", "topic")
MAX_RECURSION = 1000


class Inputs:
    """Makes the inputs of one runnable; its schema is looked at once, when it is first needed."""

    def __init__(self, runnable: Runnable[Any, Any]) -> None:
        self._runnable = runnable

    def input_of(self, prompt: Prompt) -> Any:
        """Raises `InvalidRequest`."""
        if prompt.input is not None:
            return decoded(prompt.input)
        schema = self._schema
        kinds = _kinds(schema)
        keys = _keys(schema) if "object" in kinds and "string" not in kinds else []
        if keys and "root" not in keys:  # that is what LangChain calls an input which is passed on whole
            return self._dict(keys, prompt)
        if "array" in kinds:  # a chat model takes text too, but then forgets what was said before
            return messages_of(prompt.messages, "messages")
        return _last_text(prompt)

    def misfit(self, value: Any) -> InvalidRequest | None:
        """Return what is wrong with an input by the runnable's own schema; ``None`` if nothing is."""
        try:
            schema: Any = self._runnable.get_input_schema()
            schema.model_validate(value)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            at = ".".join(["input", *map(str, first["loc"])])[:200]
            return InvalidRequest(f"{at}: {first['msg']}", code="wrong_type", param=at)
        except Exception:  # a schema of the user's own types may not be one
            pass
        return None

    def _dict(self, keys: list[str], prompt: Prompt) -> dict[str, Any]:
        found: dict[str, Any] = {}
        left = []
        for key in keys:
            if key in CONVERSATION_KEYS or (len(keys) == 1 and self._wants_messages(key)):
                found[key] = messages_of(prompt.messages, "messages")
            elif key in HISTORY_KEYS:
                found[key] = messages_of(prompt.messages, "messages")[:-1]
            elif key in TEXT_KEYS or len(keys) == 1:
                found[key] = _last_text(prompt)
            else:
                left.append(key)
        asked_by_text = set(found) - set(CONVERSATION_KEYS) - set(HISTORY_KEYS)
        if len(left) == 1 and not asked_by_text:
            found[left.pop()] = _last_text(prompt)
        if left:
            raise InvalidRequest(
                f"input: this runnable needs {', '.join(map(repr, keys))}, which messages do not tell",
                code="required",
                param="input",
            )
        return found

    def _wants_messages(self, key: str) -> bool:
        return "array" in _kinds(_resolved(self._schema.get("properties", {}).get(key, {}), self._schema))

    @functools.cached_property
    def _schema(self) -> Mapping[str, Any]:
        try:
            schema = self._runnable.get_input_jsonschema()
        except Exception:  # a schema of the user's own types may have no form in JSON
            return {}
        return _resolved(schema, schema)


class Configurations:
    """Makes the configurations of one runnable's runs."""

    def __init__(self, runnable: Runnable[Any, Any]) -> None:
        self._runnable = runnable

    def config_of(self, prompt: Prompt) -> RunnableConfig:
        """Return tags, metadata, recursion limit and the values of configurable fields.

        The caller's ``configurable`` is passed on but for names that begin with
        two underscores, which frameworks use inside. Of the parameters of the
        request (``temperature`` and the like) those count that the runnable
        declares as configurable; its own model is not to be changed by others.
        The thread is ``thread_id``, and ``session_id`` where that is declared.
        Raises `InvalidRequest`.
        """
        config = RunnableConfig()
        said = prompt.config
        if (tags := said.get("tags")) is not None:
            if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
                raise _wrong("tags", "a list of texts")
            config["tags"] = tags
        if (metadata := said.get("metadata")) is not None:
            config["metadata"] = _object("metadata", metadata)
        if (limit := said.get("recursion_limit")) is not None:
            if not isinstance(limit, int) or isinstance(limit, bool) or not 0 < limit <= MAX_RECURSION:
                raise _wrong("recursion_limit", f"a whole number from 1 to {MAX_RECURSION}")
            config["recursion_limit"] = limit
        given = _object("configurable", said.get("configurable") or {})
        configurable = {name: value for name, value in given.items() if not name.startswith("__")}
        for name in self._declared & prompt.params.keys():
            configurable.setdefault(name, prompt.params[name])
        if prompt.thread:
            configurable["thread_id"] = prompt.thread
            if "session_id" in self._declared:
                configurable["session_id"] = prompt.thread
        if configurable:
            config["configurable"] = configurable
        return config

    @functools.cached_property
    def _declared(self) -> set[str]:
        return {spec.id for spec in self._runnable.config_specs}


def _object(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(name, "an object")
    return value


def _wrong(name: str, wanted: str) -> InvalidRequest:
    return InvalidRequest(f"config.{name}: {wanted}", code="wrong_type", param=f"config.{name}")


def _last_text(prompt: Prompt) -> str:
    """Return the text of what the user said last, empty where there is none."""
    content = next((said.get("content") for said in prompt.messages[::-1] if said.get("role") == "user"), "")
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "\n".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _kinds(schema: Mapping[str, Any]) -> set[str]:
    """Return the JSON types that a schema allows at its top; none where it does not say."""
    if isinstance(kind := schema.get("type"), str):
        return {kind}
    several = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    return {kind for each in several for kind in _kinds(each)}


def _keys(schema: Mapping[str, Any]) -> list[str]:
    """Return the keys that must be there, or all where none must."""
    return list(schema.get("required") or schema.get("properties") or ())


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/$defs/"):
        found: Mapping[str, Any] = root.get("$defs", {}).get(reference.removeprefix("#/$defs/"), {})
        return found
    return schema
