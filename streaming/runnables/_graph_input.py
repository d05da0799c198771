"""What a graph is given: its input, made of a prompt, and its configuration."""

import typing
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.pregel import Pregel
from langgraph.types import Command, StateSnapshot

from streaming.errors import InvalidRequest
from streaming.runnables._langchain_objects import decoded, messages_of
from streaming.sources import Prompt

Graph = Pregel[Any, Any, Any, Any]

MAX_RECURSION = 1000
TEXT_FIELDS = ("input", "question", "query", "prompt", "text", "topic")
NOT_CARRIED_OUT = "This was not carried out: the run was stopped."


def config_of(prompt: Prompt) -> RunnableConfig:
    """Return LangGraph's configuration of a run. Raises `InvalidRequest` with the field at fault."""
    asked = prompt.config
    if unknown := sorted(set(asked) - {"tags", "metadata", "configurable", "recursion_limit", "run_name"}):
        raise InvalidRequest(f"config.{unknown[0][:100]} is not known", param=f"config.{unknown[0][:100]}")
    configurable = dict(_checked(asked, "configurable", dict, {}))
    config: RunnableConfig = {
        "configurable": configurable,
        "metadata": dict(_checked(asked, "metadata", dict, {})),
        "tags": list(_checked(asked, "tags", list, [])),
    }
    if not all(isinstance(tag, str) for tag in config["tags"]):
        raise InvalidRequest("config.tags is a list of texts", param="config.tags")
    for key in configurable:
        # LangGraph's own hand-over to its nodes: functions, not settings.
        if key.startswith("__"):
            param = f"config.configurable.{key[:100]}"
            raise InvalidRequest(f"{param} is LangGraph's own", param=param)
    if name := _checked(asked, "run_name", str, ""):
        config["run_name"] = name
    limit = _checked(asked, "recursion_limit", int, None)
    if limit is not None:
        if isinstance(limit, bool) or not 1 <= limit <= MAX_RECURSION:
            message = f"config.recursion_limit is between 1 and {MAX_RECURSION}"
            raise InvalidRequest(message, param="config.recursion_limit")
        config["recursion_limit"] = limit
    if thread := prompt.thread or configurable.get("thread_id"):
        configurable["thread_id"] = str(thread)
    return config


def _checked(asked: Mapping[str, Any], name: str, kind: type, default: Any) -> Any:
    value = asked.get(name)
    if value is None:
        return default
    if not isinstance(value, kind):
        raise InvalidRequest(f"config.{name} is not of the right kind", param=f"config.{name}")
    return value


def resumes(prompt: Prompt, graph: Graph) -> bool:
    """Return whether the prompt answers an interrupt: ``{"resume": …}``, unless that is the graph's own."""
    asked = prompt.input
    return isinstance(asked, dict) and set(asked) == {"resume"} and "resume" not in graph.channels


def resume_of(prompt: Prompt, before: StateSnapshot | None) -> Command[Any] | None:
    """Return what makes a graph go on where it waits; ``None`` is that for a breakpoint."""
    if before is None:
        raise InvalidRequest("an interrupt is answered in its thread", param="thread")
    if not before.next:
        raise InvalidRequest("nothing waits in this thread", param="input.resume", code="nothing_to_resume")
    answer = prompt.input["resume"]
    if answer is None and not before.interrupts:
        return None
    known = {interrupt.id for interrupt in before.interrupts}
    if len(known) > 1 and not (isinstance(answer, dict) and answer and set(answer) <= known):
        message = "several interrupts wait in this thread: give an object of answers by interrupt id"
        raise InvalidRequest(message, param="input.resume", code="which_interrupt")
    if answer is None:
        # LangGraph takes an answer of null for none, unless it says which question it is for.
        return Command(resume=dict.fromkeys(known))
    return Command(resume=answer)


def input_of(prompt: Prompt, graph: Graph, before: StateSnapshot | None) -> Any:
    """Return the input of a graph's run: as it was given, or made of the messages.

    In a thread that has a past, the messages are those after the last answer.
    Raises `InvalidRequest`.
    """
    names = _input_fields(graph)
    if prompt.input is not None:
        if isinstance(given := prompt.input, dict) and given and names and not set(given) & set(names):
            fields = ", ".join(names[:10])
            raise InvalidRequest(f"this graph takes none of these fields, but: {fields}", param="input")
        found = decoded(prompt.input)
        if isinstance(found, dict) and "messages" in names and "messages" in found:
            said = found["messages"]
            messages_of(said if isinstance(said, list) else [said], "input.messages")
        return found
    past = _messages_of(before)
    if "messages" in names:
        return {"messages": [*_unanswered(past), *_messages(prompt, after_answer=bool(past))]}
    text = _text(prompt)
    if not names:
        return _messages(prompt, after_answer=False) if _takes_a_list(graph) else text
    for name in names if len(names) == 1 else [name for name in TEXT_FIELDS if name in names]:
        return {name: text}
    fields = ", ".join(names[:10])
    raise InvalidRequest(f"this graph is not made for messages; give its input: {fields}", param="input")


def _input_fields(graph: Graph) -> list[str]:
    """Return the names of what a graph's input holds; none where it is one value."""
    schema = getattr(getattr(graph, "builder", None), "input_schema", None)
    try:
        return list(typing.get_type_hints(schema)) if schema is not None else []
    except Exception:  # a name that only its own module could resolve
        return list(getattr(schema, "__annotations__", ()))


def _takes_a_list(graph: Graph) -> bool:
    try:
        return graph.get_input_jsonschema().get("type") == "array"
    except Exception:  # pydantic cannot describe every type that a function may take
        return False


def _messages_of(before: StateSnapshot | None) -> Sequence[BaseMessage]:
    values = before.values if before is not None else None
    found = values.get("messages") if isinstance(values, dict) else getattr(values, "messages", None)
    return [message for message in found or () if isinstance(message, BaseMessage)]


def _messages(prompt: Prompt, after_answer: bool) -> list[BaseMessage]:
    messages = messages_of(prompt.messages, "messages")
    if after_answer:
        answers = [place for place, message in enumerate(messages) if isinstance(message, AIMessage)]
        messages = messages[answers[-1] + 1 :] if answers else messages
    for message in messages:
        # With an id, LangGraph knows that it is not news when a node returns it.
        message.id = message.id or str(uuid.uuid4())
    return messages


def _unanswered(past: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Answer the tool calls of a run that was stopped: no model goes on with open ones."""
    answered = {message.tool_call_id for message in past if isinstance(message, ToolMessage)}
    last = next((message for message in reversed(past) if isinstance(message, AIMessage)), None)
    return [
        ToolMessage(NOT_CARRIED_OUT, tool_call_id=str(call["id"]), name=call["name"], status="error")
        for call in (last.tool_calls if last is not None else ())
        if call["id"] not in answered
    ]


def _text(prompt: Prompt) -> str:
    asked = [message for message in messages_of(prompt.messages, "messages") if message.type == "human"]
    return str(asked[-1].text) if asked else ""
