"""What a graph's run is watched for: a stop, what its models used, what its retrievers found."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult

from streaming import scope
from streaming.errors import UpstreamTruncated
from streaming.events import Sources
from streaming.runnables._langchain_values import finish_reason_of, sources_of, usage_of
from streaming.runnables._usage import UsageSum

CUT_SHORT = frozenset({"length", "content_filter"})


class Watch(BaseCallbackHandler):
    """Ends a stopped run before each of its next steps, and counts; one for each run.

    It raises `scope.Stopped`, and `UpstreamTruncated` for an answer that was cut off.
    """

    run_inline = True
    raise_error = True

    def __init__(self) -> None:
        self.finish_reason = "stop"
        self.sources: list[Sources] = []
        """What retrievers found and nobody was told yet."""
        self._streamed: set[UUID] = set()
        self._usage = UsageSum()

    @property
    def usage(self) -> dict[str, Any] | None:
        """All models together so far, by the names of OpenAI's chat completions."""
        return self._usage.sum

    def on_chain_start(self, *_: Any, **__: Any) -> None:
        _meet_stop()

    def on_tool_start(self, *_: Any, **__: Any) -> None:
        _meet_stop()

    def on_retriever_start(self, *_: Any, **__: Any) -> None:
        _meet_stop()

    def on_llm_start(self, *_: Any, **__: Any) -> None:
        _meet_stop()

    def on_chat_model_start(self, *_: Any, **__: Any) -> None:
        _meet_stop()

    def on_llm_new_token(self, *_: Any, run_id: UUID, **__: Any) -> None:
        self._streamed.add(run_id)
        _meet_stop()

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        streamed = run_id in self._streamed
        self._streamed.discard(run_id)
        generation = next((each for several in response.generations for each in several), None)
        message: BaseMessage | None = getattr(generation, "message", None)
        self._usage.add(usage_of(message, response.llm_output))
        if generation is None:
            return
        reason = finish_reason_of(message, generation.generation_info)
        provider = message.response_metadata.get("model_provider") if message is not None else ""
        if not reason and streamed and provider == "openai":
            # The SDK ends without a word when a connection is closed in order, but early.
            raise UpstreamTruncated("the model's answer was cut off")
        self.finish_reason = reason if reason in CUT_SHORT else "stop"

    def on_retriever_end(self, documents: Sequence[Document], **_: Any) -> None:
        self.sources.append(sources_of(documents))


def _meet_stop() -> None:
    if (stopped := scope.current().stopped) is not None:
        raise stopped
