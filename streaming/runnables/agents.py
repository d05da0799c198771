"""Agents of OpenAI's Agents SDK: tools, handoffs, guardrails and sessions as one stream.

The SDK is asynchronous: its runs live on the worker's asyncio loop. A run is
one answer, as of a tool loop (`tools`); which agent speaks is told as a
`StateUpdate` whose node is the agent's name. An agent that names no model gets
the service's default one. With a ``thread`` a run continues the conversation
that the SDK keeps under that name. Nothing is traced to anybody.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from typing import Any

import msgspec
from agents import (
    Agent,
    ModelRefusalError,
    ModelRetrySettings,
    ModelSettings,
    RunConfig,
    Runner,
    RunResultStreaming,
    SQLiteSession,
    retry_policies,
    set_tracing_disabled,
)
from openai.types.shared import Reasoning as ReasoningSettings

from streaming import scope
from streaming.errors import InvalidRequest, StreamingError
from streaming.events import Done, Event, Status, Usage
from streaming.runnables import _bridge, _whole_answers
from streaming.runnables._agent_events import AgentEvents, usage_of
from streaming.runnables._agent_failures import failure_of
from streaming.runnables._agent_models import ServiceModels
from streaming.runnables._scoped import scope_http_clients
from streaming.runnables._tool_rounds import asked_of, refuse
from streaming.settings import Settings
from streaming.sources import Batches, Prompt, Source, responses

STOP_SECONDS = 0.8
MAX_TURNS = 10
RESULT_BYTES = 64 * 1024
RETRIED = (408, 409, 429, 500, 502, 503, 504, 529)
SAME = frozenset(
    "temperature top_p frequency_penalty presence_penalty parallel_tool_calls verbosity metadata".split()
)
NOT_HERE = {
    "tools": "an agent has tools of its own",
    "functions": "an agent has tools of its own",
    "function_call": "an agent has tools of its own",
    "tool_choice": "an agent has tools of its own",
    "response_format": "an agent says itself what it answers with",
    "n": "an agent has one answer",
}

MODES = ()

# Its traces would go to OpenAI, whoever's model it is.
set_tracing_disabled(True)


class AgentSource:
    """See `Source`. Raises `InvalidRequest` for what a prompt cannot have here, as tools of its own."""

    def __init__(
        self,
        agent: Agent[Any],
        settings: Settings,
        *,
        sessions_path: str = "agent_sessions.db",
        max_turns: int = MAX_TURNS,
        result_bytes: int = RESULT_BYTES,
    ) -> None:
        self._agent = agent
        self._settings = settings
        self._models = ServiceModels(settings)
        self._sessions_path = sessions_path
        self._max_turns = max_turns
        self._result_bytes = result_bytes

    def events(self, prompt: Prompt) -> Batches:
        refuse(prompt.params, NOT_HERE)
        run = _Run(self._agent, self._result_bytes)
        asked = _asked(prompt)
        yield [Status("thinking", 0)]
        try:
            with contextlib.closing(
                _bridge.iterate(lambda: run.batches(asked, self._config(prompt, run), self._options(prompt)))
            ) as hauls:
                for haul in hauls:
                    yield [event for batch in haul for event in batch]
        except scope.Stopped:
            yield run.usage()
            raise
        except Exception as error:
            yield run.usage()
            raise failure_of(error) from None
        yield run.end()

    def _config(self, prompt: Prompt, run: "_Run") -> RunConfig:
        return RunConfig(
            model_provider=self._models,
            model_settings=_model_settings(prompt.params, self._settings),
            tracing_disabled=True,
            tool_error_formatter=run.events.tool_failed,
            tool_not_found_behavior="return_error_to_model",
        )

    def _options(self, prompt: Prompt) -> "_Options":
        return _Options(self._max_turns, prompt.thread, self._sessions_path)


class _Options(msgspec.Struct, frozen=True):
    max_turns: int
    thread: str
    sessions_path: str


class _Asked(msgspec.Struct, frozen=True):
    """The items of what is asked."""

    all: list[Any]
    new: list[Any]
    """Those after the last answer, for a session that has the others."""


class _Run:
    """One run; what is asynchronous happens on the worker's asyncio loop."""

    def __init__(self, agent: Agent[Any], result_bytes: int) -> None:
        self.events = AgentEvents(result_bytes)
        self._agent = agent
        self._result: RunResultStreaming | None = None

    async def batches(
        self, asked: _Asked, config: RunConfig, options: _Options
    ) -> AsyncGenerator[Sequence[Event], None]:
        with _whole_answers.counted() as answers:
            async with _session(options) as session:
                remembers = session is not None and bool(await session.get_items(limit=1))
                items = asked.new if remembers else asked.all
                self._result = result = Runner.run_streamed(
                    self._agent, items, max_turns=options.max_turns, run_config=config, session=session
                )
                try:
                    async with contextlib.aclosing(result.stream_events()) as told:  # type: ignore[type-var]
                        with _ending(result):
                            async for event in told:
                                if batch := self.events.of(event):
                                    yield batch
                except ModelRefusalError:
                    return  # that is its answer, and was told word by word
                finally:
                    await answers.all_closed(STOP_SECONDS)
                if result.interruptions:
                    raise _needs_approval(result)
                yield self.events.final(result.final_output)

    def usage(self) -> list[Event]:
        usage = self._usage()
        return [Usage(usage)] if usage else []

    def end(self) -> list[Event]:
        return [*self.usage(), Done("stop", self._usage())]

    def _usage(self) -> dict[str, Any] | None:
        return usage_of(self._result.context_wrapper.usage) if self._result else None


@contextlib.contextmanager
def _ending(result: RunResultStreaming) -> Iterator[None]:
    """End what the SDK does for a run, in tasks of its own, when the run is left early.

    Closing its events alone would wait for them to end by themselves.
    """
    try:
        yield
    finally:
        if not result.is_complete:
            result.cancel()


class _Session(SQLiteSession):
    """Its commits happen on the worker's loop, which must not wait for a disk."""

    @staticmethod
    def _configure_connection(connection: sqlite3.Connection) -> None:
        SQLiteSession._configure_connection(connection)
        connection.execute("PRAGMA synchronous = NORMAL")


@contextlib.asynccontextmanager
async def _session(options: _Options) -> AsyncIterator[SQLiteSession | None]:
    if not options.thread:
        yield None
        return
    session = await asyncio.to_thread(_Session, options.thread, options.sessions_path)
    try:
        yield session
    finally:
        await asyncio.to_thread(session.close)


def _needs_approval(result: RunResultStreaming) -> StreamingError:
    names = ", ".join(str(item.name) for item in result.interruptions)
    return InvalidRequest(f"a person must approve of a tool, which is not possible here: {names[:200]}")


def _asked(prompt: Prompt) -> _Asked:
    messages = asked_of(prompt)
    new = messages
    if prompt.thread:
        # The session has what came before; a chat client sends it all the same.
        last_said = max((i for i, m in enumerate(messages) if m.get("role") == "assistant"), default=-1)
        new = messages[last_said + 1 :]
    if not new:
        raise InvalidRequest("messages: the last one is not the user's", code="required", param="messages")
    return _Asked(*(list(responses.body_of(Prompt(prompt.model, each))["input"]) for each in (messages, new)))


def _model_settings(params: dict[str, Any], settings: Settings) -> ModelSettings:
    """Return what a request may say of the model. Raises `InvalidRequest`."""
    given = {name: value for name, value in params.items() if value is not None}
    said: dict[str, Any] = {name: given.pop(name) for name in SAME & given.keys()}
    for name in ("max_tokens", "max_completion_tokens"):  # the newer name counts
        if name in given:
            said["max_tokens"] = given.pop(name)
    if "reasoning_effort" in given:
        said["reasoning"] = ReasoningSettings.model_construct(effort=given.pop("reasoning_effort"))
    for name in ("stream", "stream_options", "store", "model", "messages", "n"):
        given.pop(name, None)
    return ModelSettings(
        include_usage=True,
        extra_body=given or None,
        retry=ModelRetrySettings(
            max_retries=settings.upstream_retries, policy=retry_policies.http_status(RETRIED)
        ),
        **said,
    )


def accepts(found: object) -> bool:
    return isinstance(found, Agent)


def remembers(found: object) -> bool:
    return True  # by a session of the SDK


def create(found: Agent[Any], settings: Settings, **options: Any) -> Source:
    """``options``: those of `AgentSource`, as ``sessions_path``."""
    scope_http_clients()  # those of its tools
    return AgentSource(found, settings, **{"sessions_path": settings.sessions_path, **options})
