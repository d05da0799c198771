"""What happens inside a chain, as events: a callback handler, one for each run.

LangChain calls it in whatever greenlet or thread a model, tool or retriever
runs in. The text of the answer is not its business, but for models that are
tagged ``answer`` (`_langchain_text`).
"""

import time
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import LLMResult

from streaming.errors import UpstreamTruncated
from streaming.events import Event, Reasoning, Status, Token, ToolCall, ToolResult, Usage
from streaming.runnables._langchain_text import Pieces, text_of
from streaming.runnables._langchain_values import calls_of, finish_reason_of, result_of, sources_of, usage_of
from streaming.runnables._readable import to_json
from streaming.runnables._usage import UsageSum

ANSWER_TAG = "answer"


class _Model:
    """One call of a model."""

    def __init__(self, speaks: bool, is_structured: bool) -> None:
        self.speaks = speaks
        self.is_structured = is_structured
        """Its tool call is how it answers with an object: nobody is to run it."""
        self.text = Pieces()
        self.reasoning = Pieces()
        self.streamed = False
        self.spoke = False
        self.reasoned = False


class AnswerHandler(BaseCallbackHandler):
    """Tells events as they happen."""

    run_inline = True
    raise_error = True  # the one error it raises is that of an answer that was cut off

    def __init__(self, tell: Callable[[Event], None]) -> None:
        self.spoke = False
        """Some model that is tagged for it gave the text of the answer."""
        self.finish_reason = "stop"
        self.usage = UsageSum()
        self._tell = tell
        self._began = time.monotonic()
        self._thinking = False
        self._models: dict[UUID, _Model] = {}
        self._tools: dict[UUID, tuple[str, str]] = {}
        self._called: set[str] = set()

    # Models

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        tags: list[str] | None = None,
        **more: Any,
    ) -> None:
        self._start_model(run_id, tags, more)

    def on_llm_start(
        self,
        serialized: dict[str, Any],
        prompts: list[str],
        *,
        run_id: UUID,
        tags: list[str] | None = None,
        **more: Any,
    ) -> None:
        self._start_model(run_id, tags, more)

    def _start_model(self, run_id: UUID, tags: list[str] | None, more: dict[str, Any]) -> None:
        structured = (more.get("options") or {}).get("ls_structured_output_format") is not None
        self._models[run_id] = _Model(ANSWER_TAG in (tags or ()), structured)
        if not self._thinking:
            self._thinking = True
            self._tell(Status("thinking", int((time.monotonic() - self._began) * 1000)))

    def on_llm_new_token(self, token: Any, *, chunk: Any = None, run_id: UUID, **more: Any) -> None:
        model = self._models.get(run_id)
        if model is None:
            return
        model.streamed = True
        message = getattr(chunk, "message", None)
        if isinstance(message, AIMessage):
            self._reason(model, message)
            token = text_of(message)
        if model.speaks and isinstance(token, str):
            self._speak(model, token)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **more: Any) -> None:
        model = self._models.pop(run_id, None)
        generation = next((each for several in response.generations for each in several), None)
        if model is None or generation is None:
            return
        message: BaseMessage | None = getattr(generation, "message", None)
        if isinstance(message, AIMessage):
            if not model.reasoned:
                self._reason(model, message)
            if not model.is_structured:
                self._tell_calls(message)
        if model.speaks and not model.spoke:
            self._speak(model, text_of(message) if message is not None else generation.text)
        if half := model.reasoning.end():
            self._tell(Reasoning(half))
        if half := model.text.end():
            self._tell(Token(half))
        if usage := usage_of(message, response.llm_output):
            self.usage.add(usage)
            self._tell(Usage(dict(self.usage.sum or usage)))
        reason = finish_reason_of(message, generation.generation_info)
        if not reason and model.streamed and _always_says_why(message):
            raise UpstreamTruncated("the model's answer was cut off")
        self.finish_reason = "stop" if model.is_structured or not reason else reason

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **more: Any) -> None:
        self._models.pop(run_id, None)

    def _speak(self, model: _Model, text: str) -> None:
        if text := model.text.add(text):
            self.spoke = model.spoke = True
            self._tell(Token(text))

    def _reason(self, model: _Model, message: AIMessage) -> None:
        if isinstance(message.content, str) and not message.additional_kwargs:
            return  # no blocks to look for, which costs more than all else here
        for block in message.content_blocks:
            if block["type"] == "reasoning" and (text := model.reasoning.add(block.get("reasoning") or "")):
                model.reasoned = True
                self._tell(Reasoning(text))

    def _tell_calls(self, message: AIMessage) -> None:
        for call in calls_of(message):
            self._called.add(call.id)
            self._tell(call)

    # Tools

    def on_tool_start(
        self,
        serialized: dict[str, Any],
        input_str: str,
        *,
        run_id: UUID,
        inputs: dict[str, Any] | None = None,
        name: str | None = None,
        tool_call_id: str | None = None,
        **more: Any,
    ) -> None:
        tool = name or str((serialized or {}).get("name") or "tool")
        call_id = tool_call_id or str(run_id)
        self._tools[run_id] = call_id, tool
        if call_id not in self._called:
            # Called by the chain itself, so no model said so.
            self._called.add(call_id)
            args = to_json(inputs if inputs is not None else {"input": input_str})
            self._tell(ToolCall(call_id, tool, args, handled=True))

    def on_tool_end(self, output: Any, *, run_id: UUID, **more: Any) -> None:
        call_id, tool = self._tools.pop(run_id, (str(run_id), "tool"))
        self.finish_reason = "stop"
        self._tell(result_of(call_id, tool, output))

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **more: Any) -> None:
        call_id, tool = self._tools.pop(run_id, (str(run_id), "tool"))
        if isinstance(error, Exception):  # else the run is being stopped
            self._tell(ToolResult(call_id, tool, f"the tool failed: {type(error).__name__}", failed=True))

    # Retrievers

    def on_retriever_end(self, documents: Sequence[Document], *, run_id: UUID, **more: Any) -> None:
        self._tell(sources_of(documents))


def _always_says_why(message: BaseMessage | None) -> bool:
    """Say whether the model is one whose stream, when whole, says why it ended.

    The SDK ends without a word when a connection is closed in order but early.
    """
    return message is not None and message.response_metadata.get("model_provider") == "openai"
