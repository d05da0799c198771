"""What a run of LangChain's objects is watched for: that it was stopped, and what its models used."""

from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, UsageMetadata
from langchain_core.outputs import ChatGeneration, LLMResult

from streaming import scope
from streaming.runnables._usage import UsageSum

CUT_SHORT = frozenset({"length", "content_filter"})


class Watch(BaseCallbackHandler):
    """Ends a stopped run before each of its next steps, and counts; one for each run."""

    run_inline = True
    raise_error = True

    def __init__(self) -> None:
        self.finish_reason = "stop"
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

    def on_llm_new_token(self, *_: Any, **__: Any) -> None:
        _meet_stop()

    def on_llm_end(self, response: LLMResult, **_: Any) -> None:
        generation = response.generations[0][0] if response.generations and response.generations[0] else None
        if isinstance(generation, ChatGeneration) and isinstance(generation.message, AIMessage):
            reason = generation.message.response_metadata.get("finish_reason")
            self.finish_reason = reason if reason in CUT_SHORT else "stop"
            if (used := generation.message.usage_metadata) is not None:
                self._usage.add(_as_openai(used))


def _meet_stop() -> None:
    if (stopped := scope.current().stopped) is not None:
        raise stopped


def _as_openai(used: UsageMetadata) -> dict[str, Any]:
    usage: dict[str, Any] = {
        "prompt_tokens": used["input_tokens"],
        "completion_tokens": used["output_tokens"],
        "total_tokens": used["total_tokens"],
    }
    if cached := (used.get("input_token_details") or {}).get("cache_read"):
        usage["prompt_tokens_details"] = {"cached_tokens": cached}
    if reasoned := (used.get("output_token_details") or {}).get("reasoning"):
        usage["completion_tokens_details"] = {"reasoning_tokens": reasoned}
    return usage
