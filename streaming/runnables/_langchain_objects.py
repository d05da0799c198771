"""LangChain's own objects in JSON, as LangServe's clients send them: by their ``type``.

Only data: messages, documents, prompts and the like are checked and made; no
class is named by a request, and nothing is loaded.
"""

from typing import Any

from langchain_core import messages
from langchain_core.agents import AgentAction, AgentActionMessageLog, AgentFinish
from langchain_core.documents import Document
from langchain_core.prompt_values import ChatPromptValueConcrete, StringPromptValue
from pydantic import BaseModel

from streaming.errors import InvalidRequest

KINDS: dict[str, type[BaseModel]] = {
    "ai": messages.AIMessage,
    "human": messages.HumanMessage,
    "chat": messages.ChatMessage,
    "system": messages.SystemMessage,
    "function": messages.FunctionMessage,
    "tool": messages.ToolMessage,
    **{
        kind.__name__: kind
        for kind in (
            messages.AIMessageChunk,
            messages.HumanMessageChunk,
            messages.ChatMessageChunk,
            messages.SystemMessageChunk,
            messages.FunctionMessageChunk,
            messages.ToolMessageChunk,
            Document,
            StringPromptValue,
            ChatPromptValueConcrete,
            AgentAction,
            AgentFinish,
            AgentActionMessageLog,
        )
    },
}


def decoded(value: Any) -> Any:
    """Return JSON with the objects in it made; what does not fit its type stays as it is.

    >>> decoded([{"type": "human", "content": "hello"}])[0].content
    'hello'
    """
    if isinstance(value, list):
        return [decoded(each) for each in value]
    if not isinstance(value, dict):
        return value
    fields = {name: decoded(each) for name, each in value.items()}
    kind = KINDS.get(name) if isinstance(name := fields.get("type"), str) else None
    if kind is None:
        return fields
    try:
        return kind.model_validate(fields)
    except Exception:  # whatever validators of another library think of what a stranger sent
        return fields


def messages_of(given: list[Any], field: str) -> list[messages.BaseMessage]:
    """Return messages as LangChain's own, whatever their shape. Raises `InvalidRequest` for ``field``."""
    try:
        return messages.convert_to_messages(given)
    except (ValueError, NotImplementedError, KeyError, TypeError):
        raise InvalidRequest(f"{field}: not all are messages", code="wrong_type", param=field) from None
