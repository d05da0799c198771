"""Any of LangChain's runnables is a source: its text, what happens inside it, and its end."""

import gc
import json
import time
from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any

import gevent
import httpx
import pytest
from langchain_core.callbacks import CallbackManagerForLLMRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel, FakeListLLM, GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.output_parsers import JsonOutputParser, StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import (
    ConfigurableField,
    Runnable,
    RunnableConfig,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from langchain_core.tools import tool
from pydantic import BaseModel

from streaming import scope
from streaming.errors import (
    InvalidRequest,
    RunnableFailed,
    UpstreamAuth,
    UpstreamFailure,
    UpstreamRateLimited,
    UpstreamTruncated,
    UpstreamUnreachable,
)
from streaming.eventlogs import Claim
from streaming.eventlogs.memory import MemoryLog
from streaming.events import (
    Done,
    Event,
    Reasoning,
    Sources,
    Start,
    Status,
    Token,
    ToolCall,
    ToolResult,
    Usage,
    decode,
    encode,
)
from streaming.models import chat_model
from streaming.producer import Producers
from streaming.runnables import _clients
from streaming.runnables.langchain import LangChainSource, accepts, create
from streaming.settings import Settings
from streaming.sources import Prompt, Source
from tests.doubles import all_events, ended, eventually, new_stream, text_of
from tests.live.service import Upstream

DEMO = Settings(demo_tokens_per_second=0)
ANSWERS = ChatPromptTemplate.from_messages([("human", "{question}")])


@pytest.fixture(autouse=True)
def _demo_model() -> None:
    _clients.use(DEMO)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    process = Upstream()
    yield process
    process.stop()


@pytest.fixture
def asking(upstream: Upstream) -> Settings:
    settings = Settings(openai_base_url=upstream.base_url, openai_api_key="sk-test")
    _clients.use(settings)
    return settings


def asked(text: str = "ping", **fields: Any) -> Prompt:
    return Prompt("demo", [{"role": "user", "content": text}], **fields)


def run(runnable: Any, prompt: Prompt | None = None, settings: Settings = DEMO) -> list[Event]:
    source: Source = create(runnable, settings)
    events = [event for batch in source.events(prompt or asked()) for event in batch]
    assert [decode(encode(event)) for event in events] == events  # each can be kept
    return events


def of(kind: type[Event], events: list[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


class Scripted(BaseChatModel):
    """Says the chunks it is made with; ``_generate`` says them at once."""

    chunks: list[AIMessageChunk]
    streams: bool = True

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        whole = self.chunks[0]
        for chunk in self.chunks[1:]:
            whole = whole + chunk
        message = AIMessage(
            whole.content, response_metadata=whole.response_metadata, usage_metadata=whole.usage_metadata
        )
        return ChatResult(generations=[ChatGeneration(message=message)])


class Streaming(Scripted):
    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in self.chunks:
            yield ChatGenerationChunk(message=chunk.model_copy())


def saying(*words: str, kind: type[Scripted] = Streaming) -> Scripted:
    return kind(chunks=[AIMessageChunk(content=word) for word in words])


class Shelf(BaseRetriever):
    found: list[Document]

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        return self.found


# Which text is shown


class Answer(BaseModel):
    """What to say."""

    answer: str


TEXTS: dict[str, tuple[Callable[[], Any], str]] = {
    "a model": (chat_model, "pong"),
    "a chain": (lambda: ANSWERS | chat_model() | StrOutputParser(), "pong"),
    "a model that does not stream": (lambda: saying("a", "b", kind=Scripted), "ab"),
    "a completion model": (lambda: FakeListLLM(responses=["as text"]), "as text"),
    "a parser that changes the text": (lambda: saying("a", "b") | StrOutputParser() | str.upper, "AB"),
    "an invoke inside of a function": (
        lambda: RunnableLambda(lambda text: (ANSWERS | chat_model()).invoke({"question": text})),
        "pong",
    ),
    "a model that phrases the question for another": (
        lambda: saying("hidden") | StrOutputParser() | chat_model().bind() | (lambda said: said.text[:8]),
        "> hidden",
    ),
    "a model tagged answer": (
        lambda: RunnableLambda(
            lambda text: saying("x", "y").with_config(tags=["answer"]).invoke(text).text + "z"
        ),
        "xy",
    ),
    "a model that does not stream, tagged answer": (
        lambda: RunnableLambda(
            lambda text: saying("x", kind=Scripted).with_config(tags=["answer"]).invoke(text).text + "z"
        ),
        "x",
    ),
    "a dict with an answer": (
        lambda: RunnablePassthrough.assign(answer=itemgetter("question") | chat_model() | StrOutputParser()),
        "pong",
    ),
    "a dict": (
        lambda: RunnableLambda(lambda text: {"said": text, "n": float("nan")}),
        '{"said":"ping","n":null}',
    ),
    "an object": (lambda: RunnableLambda(lambda text: Answer(answer=text)), '{"answer":"ping"}'),
    "branches": (
        lambda: RunnableParallel(a=saying("1", "2") | StrOutputParser(), b=lambda _: 3),
        '{"a":"12","b":3}',
    ),
    "JSON that grows": (lambda: saying('{"a": [1', ", 2]", "}") | JsonOutputParser(), '{"a":[1,2]}'),
    "nothing": (lambda: RunnableLambda(lambda _: None), ""),
    "a character in two halves": (lambda: saying("\ud83d", "\ude00", "!"), "😀!"),
    "a half that stays alone": (lambda: saying("a\ud83d"), "a\ufffd"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_the_text_is_what_the_runnable_yields(name: str) -> None:
    make, text = TEXTS[name]
    prompt = asked(input={"question": "ping"}) if name == "a dict with an answer" else None

    events = run(make(), prompt)

    shown = text_of(events)
    assert json.loads(shown) == json.loads(text) if text[:1] == "{" else shown == text
    assert isinstance(events[-1], Done)


def test_tokens_are_told_as_they_come(asking: Settings) -> None:
    chain = ANSWERS | chat_model() | StrOutputParser()
    came: list[float] = []

    for batch in create(chain, asking).events(asked('<<{"tokens": 5, "pace_ms": 60}>>')):
        came += [time.monotonic() for event in batch if isinstance(event, Token)]

    assert len(came) == 5
    assert came[-1] - came[0] > 0.15


def test_tokens_of_a_tagged_model_come_before_the_chain_yields(asking: Settings) -> None:
    model = chat_model(tags=["answer"])
    chain = RunnableLambda(lambda text: model.invoke(text).text)
    came: list[float] = []

    for batch in create(chain, asking).events(asked('<<{"tokens": 5, "pace_ms": 60}>>')):
        came += [time.monotonic() for event in batch if isinstance(event, Token)]

    assert len(came) == 5
    assert came[-1] - came[0] > 0.15


def test_structured_output_is_told_as_json() -> None:
    events = run(chat_model().with_structured_output(Answer, method="function_calling"))

    assert json.loads(text_of(events)).keys() == {"answer"}
    assert not of(ToolCall, events)  # it is how the model answers: nobody is to run it
    assert events[-1].finish_reason == "stop"  # type: ignore[union-attr]


# What happens inside


def test_calls_results_and_sources_are_told_in_their_order() -> None:
    @tool
    def weather(city: str) -> dict[str, Any]:
        """Tell the weather of a city."""
        return {"city": city, "degrees": 21}

    shelf = Shelf(
        found=[Document("text " * 200, id="d1", metadata={"title": "T", "score": 0.5}), Document("x")]
    )

    def ask(text: str, config: RunnableConfig) -> str:
        shelf.invoke(text, config)
        said = chat_model().bind_tools([weather]).invoke("weather?", config)
        return str(weather.invoke(said.tool_calls[0], config).content)

    events = run(RunnableLambda(ask))

    kinds = [type(event) for event in events if not isinstance(event, Status | Usage)]
    assert kinds == [Sources, ToolCall, ToolResult, Token, Done]
    (sources,), (call,), (result,) = of(Sources, events), of(ToolCall, events), of(ToolResult, events)
    first, second = sources.documents
    assert (first.id, first.title, first.score, len(first.snippet)) == ("d1", "T", 0.5, 501)
    assert second.id
    assert second.score is None
    assert (call.tool, result.id, result.failed) == ("weather", call.id, False)
    assert json.loads(result.result)["degrees"] == 21
    assert events[-1].finish_reason == "stop"  # type: ignore[union-attr]


def test_calls_that_nobody_here_answers_end_the_run_with_them() -> None:
    @tool
    def weather(city: str) -> str:
        """Tell the weather of a city."""
        return city

    events = run(chat_model().bind_tools([weather]), asked("weather?"))

    (call,) = of(ToolCall, events)
    assert call.tool == "weather"
    assert not call.handled
    assert events[-1].finish_reason == "tool_calls"  # type: ignore[union-attr]


def test_a_tool_that_a_chain_runs_by_itself_is_a_call_too() -> None:
    @tool
    def double(number: int) -> int:
        """Double a number."""
        return 2 * number

    events = run(double, asked(input={"number": 21}))

    (call,), (result,) = of(ToolCall, events), of(ToolResult, events)
    assert (call.tool, call.args, call.handled) == ("double", {"number": 21}, True)
    assert (result.id, result.result) == (call.id, 42)
    assert text_of(events) == "42"


def test_what_a_tool_raises_is_told_without_its_text() -> None:
    @tool
    def refuse(key: str) -> str:
        """Refuse."""
        raise PermissionError(f"not with {key}")

    def ask(_: str, config: RunnableConfig) -> str:
        try:
            return str(refuse.invoke({"key": "sk-secret"}, config))
        except PermissionError:
            return "went on"

    events = run(RunnableLambda(ask))

    (result,) = of(ToolResult, events)
    assert (result.failed, result.result) == (True, "the tool failed: PermissionError")
    assert text_of(events) == "went on"


def test_a_huge_result_is_cut() -> None:
    @tool
    def read(name: str) -> str:
        """Read a file."""
        return "x" * 10**6

    (result,) = of(ToolResult, run(read, asked(input={"name": "a"})))

    assert result.truncated
    assert len(result.result) == 64 * 1024


def test_reasoning_blocks_are_told_apart_from_the_text() -> None:
    chunks = [
        AIMessageChunk(content=[{"type": "reasoning", "reasoning": "hm", "index": 0}]),
        AIMessageChunk(content=[{"type": "reasoning", "reasoning": "m.", "index": 0}]),
        AIMessageChunk(content=[{"type": "text", "text": "yes", "index": 1}]),
    ]

    events = run(Streaming(chunks=chunks))

    assert [event.content for event in of(Reasoning, events)] == ["hm", "m."]
    assert text_of(events) == "yes"


def test_usage_is_summed_over_all_models() -> None:
    def used(asked: int, said: int) -> Any:
        return {"input_tokens": asked, "output_tokens": said, "total_tokens": asked + said}

    first = Streaming(chunks=[AIMessageChunk(content="a", usage_metadata=used(3, 1))])
    second = Scripted(chunks=[AIMessageChunk(content="b", usage_metadata=used(5, 2))])

    events = run(first | StrOutputParser() | second)

    assert [usage.usage["total_tokens"] for usage in of(Usage, events)] == [4, 11]
    assert events[-1] == Done("stop", {"prompt_tokens": 8, "completion_tokens": 3, "total_tokens": 11})


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"finish_reason": "length"}, "length"),
        ({"stop_reason": "max_tokens"}, "length"),
        ({"stop_reason": "end_turn"}, "stop"),
        ({"finish_reason": "content_filter"}, "content_filter"),
        ({}, "stop"),
    ],
)
def test_the_reason_to_end_is_the_last_model_s(metadata: dict[str, str], reason: str) -> None:
    model = Streaming(chunks=[AIMessageChunk(content="a", response_metadata=metadata)])

    assert run(model)[-1] == Done(reason, None)


# What it is given


GIVEN: dict[str, tuple[Runnable[Any, Any], Any]] = {
    "text": (RunnableLambda(lambda text: text), "two"),
    "a key": (ChatPromptTemplate.from_template("{topic}") | (lambda value: value.to_string()), "Human: two"),
    "a question with a history": (
        ChatPromptTemplate.from_messages([MessagesPlaceholder("history"), ("human", "{question}")])
        | (lambda value: value.to_string()),
        "Human: one\nAI: yes\nHuman: two",
    ),
    "messages by a key": (
        ChatPromptTemplate.from_messages([("placeholder", "{messages}")]) | (lambda value: value.to_string()),
        "Human: one\nAI: yes\nHuman: two",
    ),
    "text beside a retriever": (
        {"context": Shelf(found=[]), "question": RunnablePassthrough()}
        | RunnableLambda(lambda asked: asked["question"]),
        "two",
    ),
}
TURNS = [
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "yes"},
    {"role": "user", "content": [{"type": "text", "text": "two"}]},
]


@pytest.mark.parametrize("name", GIVEN)
def test_messages_become_the_input_a_runnable_wants(name: str) -> None:
    runnable, text = GIVEN[name]
    prompt = Prompt("demo", [*TURNS[:2], {"role": "user", "content": "two"}])

    assert text_of(run(runnable, prompt)) == text


def test_the_text_of_a_message_in_parts_is_its_text() -> None:
    assert text_of(run(RunnableLambda(lambda text: text), Prompt("demo", TURNS))) == "two"


def test_a_model_is_given_the_whole_conversation() -> None:
    heard: list[Any] = []

    class Listening(GenericFakeChatModel):
        def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
            heard.extend(message.type for message in messages)
            return super()._generate(messages, *args, **kwargs)

    run(Listening(messages=iter(["a"])), Prompt("demo", TURNS))

    assert heard == ["human", "ai", "human"]


def test_an_input_is_given_as_it_is() -> None:
    assert text_of(run(RunnableLambda(lambda value: [value, 1]), asked(input=[{"a": 1}]))) == '[[{"a":1}],1]'


def test_what_messages_do_not_tell_is_asked_for_by_name() -> None:
    prompt = ChatPromptTemplate.from_template("{language} {tone} {length}") | chat_model()

    with pytest.raises(InvalidRequest, match="'language', 'length', 'tone'") as raised:
        run(prompt)

    assert raised.value.param == "input"


def test_configuration_reaches_the_runnable_and_nothing_of_a_framework_s_own() -> None:
    seen: dict[str, Any] = {}

    def look(_: str, config: RunnableConfig) -> str:
        seen.update(config)
        return ""

    asked_for = {
        "tags": ["a"],
        "metadata": {"k": 1},
        "recursion_limit": 7,
        "configurable": {"user": "u", "__pregel_send": "x"},
        "callbacks": ["no"],
    }
    run(RunnableLambda(look), asked(thread="t-1", config=asked_for, params={"temperature": 1}))

    assert seen["tags"] == ["a"]
    assert seen["recursion_limit"] == 7
    assert seen["configurable"] == {"user": "u", "thread_id": "t-1"}


def test_a_parameter_counts_where_it_is_declared_configurable() -> None:
    model = chat_model().configurable_fields(temperature=ConfigurableField(id="temperature"))
    chain = model | (lambda said: said.text)

    with pytest.raises(UpstreamFailure):  # the demo model takes none above 2: so it was given it
        run(chain, asked(params={"temperature": 9.0, "top_p": 7}))
    assert text_of(run(chain, asked(params={"temperature": 1.0}))) == "pong"


@pytest.mark.parametrize(
    ("config", "param"),
    [
        ({"tags": "a"}, "config.tags"),
        ({"metadata": []}, "config.metadata"),
        ({"configurable": 1}, "config.configurable"),
        ({"recursion_limit": 0}, "config.recursion_limit"),
        ({"recursion_limit": True}, "config.recursion_limit"),
    ],
)
def test_a_wrong_configuration_is_refused_by_its_field(config: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        run(RunnableLambda(lambda text: text), asked(config=config))

    assert raised.value.param == param


def test_a_mode_it_has_not_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="events"):
        run(chat_model(), asked(modes=["values"]))


# Failures


def test_what_a_runnable_raises_is_told_by_its_class_alone() -> None:
    def fail(_: str) -> str:
        raise ValueError("sk-secret")

    with pytest.raises(RunnableFailed) as raised:
        run(RunnableLambda(fail))

    assert str(raised.value) == "the runnable raised ValueError"
    assert raised.value.__cause__ is None


def test_a_runnable_that_exits_does_not_end_the_worker() -> None:
    def leave(_: str) -> str:
        raise SystemExit(1)

    with pytest.raises(RunnableFailed, match="SystemExit"):
        run(RunnableLambda(leave))


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ({"play": "status", "status": 401}, UpstreamAuth),
        ({"play": "status", "status": 429}, UpstreamRateLimited),
        ({"play": "close"}, UpstreamUnreachable),
        ({"play": "neither", "tokens": 3}, UpstreamTruncated),
        ({"play": "stream_error", "after": 2}, UpstreamFailure),
        ({"play": "garbage", "after": 2}, UpstreamFailure),
    ],
)
def test_faults_of_the_upstream_are_told_as_those_of_a_chat(
    asking: Settings, script: dict[str, Any], kind: type[Exception]
) -> None:
    with pytest.raises(kind) as raised:
        run(ANSWERS | chat_model() | StrOutputParser(), asked(f"<<{json.dumps(script)}>>"), asking)

    assert "quoted-by-the-upstream" not in str(raised.value)
    assert "sk-test" not in str(raised.value)


# Ends


class Running:
    """A run in a greenlet, to be stopped."""

    def __init__(self, source: Source, prompt: Prompt) -> None:
        self.scope = scope.Scope()
        self.events: list[Event] = []
        self.ended: BaseException | None = None
        self._greenlet = gevent.spawn(self._run, source, prompt)

    def _run(self, source: Source, prompt: Prompt) -> None:
        batches = source.events(prompt)
        try:
            with scope.entered(self.scope):
                for batch in batches:
                    self.events += batch
        except BaseException as error:
            self.ended = error
        finally:
            batches.close()

    def stop(self) -> float:
        """Stop it and return how many seconds it took to end."""
        began = time.monotonic()
        self.scope.stop(None)
        self._greenlet.join(5)
        assert self._greenlet.dead, "the run did not end"
        return time.monotonic() - began


def nested_in_threads() -> Runnable[Any, Any]:
    return RunnableParallel(a=chat_model() | StrOutputParser(), b=chat_model() | StrOutputParser())


def in_an_own_client(settings: Settings) -> Runnable[Any, Any]:
    body = {"model": "m", "stream": True}

    def post(text: str) -> str:
        messages = [{"role": "user", "content": text}]
        return httpx.post(
            f"{settings.openai_base_url}/chat/completions", json={**body, "messages": messages}, timeout=30
        ).text

    return RunnableLambda(post)


WAITS: dict[str, Callable[[Settings], Any]] = {
    "a model": lambda _: chat_model(),
    "a chain": lambda _: ANSWERS | chat_model() | StrOutputParser(),
    "an invoke": lambda _: RunnableLambda(lambda text: chat_model(streaming=False).invoke(text).text),
    "branches": lambda _: nested_in_threads(),
    "a client of its own": in_an_own_client,
    "a fallback": lambda _: chat_model().with_fallbacks([chat_model()]),
}


@pytest.mark.parametrize("mode", [[], ["events"]])
@pytest.mark.parametrize("where", WAITS)
def test_a_stop_closes_the_upstream_wherever_the_run_waits(
    upstream: Upstream, asking: Settings, where: str, mode: list[str]
) -> None:
    token = f"{where} {len(mode)}"
    script = {"token": token.replace(" ", "-"), "tokens": 1000, "pace_ms": 50}
    running = Running(create(WAITS[where](asking), asking), asked(f"<<{json.dumps(script)}>>", modes=mode))
    upstream.wait_for_request(script["token"])  # type: ignore[arg-type]
    gevent.sleep(0.2)

    seconds = running.stop()

    assert isinstance(running.ended, scope.Stopped)
    assert seconds < 1
    assert all(
        eventually(lambda entry=entry: upstream.log(script["token"])[entry]["t_closed_by_peer"], 1)  # type: ignore[misc]
        for entry in range(len(upstream.log(script["token"])))  # type: ignore[arg-type]
    )


def test_a_stop_ends_a_run_that_sleeps() -> None:
    asleep: list[str] = []

    def sleep(text: str) -> str:
        asleep.append(text)
        try:
            time.sleep(60)
        finally:
            asleep.clear()
        return text

    running = Running(create(RunnableLambda(sleep), DEMO), asked())
    eventually(lambda: asleep)

    assert running.stop() < 1
    assert not asleep


def test_a_runnable_that_talks_meets_the_stop_at_its_next_word() -> None:
    said: list[int] = []

    def talk(_: Any) -> Iterator[str]:
        for number in range(10**9):
            said.append(number)
            yield f"{number} "
            gevent.sleep(0)

    running = Running(create(RunnableLambda(talk), DEMO), asked())
    eventually(lambda: len(said) > 100)

    assert running.stop() < 1
    known = len(said)
    gevent.sleep(0.05)
    assert len(said) == known


def test_a_run_nobody_takes_from_does_not_run_ahead() -> None:
    said: list[int] = []

    def talk(_: Any) -> Iterator[str]:
        for number in range(100_000):
            said.append(number)
            yield "word "

    batches = create(RunnableLambda(talk), DEMO).events(asked())
    next(batches)
    gevent.sleep(0.05)

    assert len(said) < 1000
    batches.close()
    gevent.sleep(0.05)
    assert len(said) < 1000


def test_a_source_that_is_closed_closes_the_upstream(upstream: Upstream, asking: Settings) -> None:
    prompt = asked('<<{"token": "closed", "tokens": 1000, "pace_ms": 50}>>')
    batches = create(nested_in_threads(), asking).events(prompt)
    next(batches)
    upstream.wait_for_request("closed")

    batches.close()

    upstream.wait_for_close("closed", 1.0)


def test_two_hundred_runs_at_once_do_not_mix() -> None:
    _clients.use(Settings(demo_tokens_per_second=200))
    one = ANSWERS | chat_model(max_tokens=24) | StrOutputParser()
    chain = RunnableParallel(a=one, b=one) | RunnableLambda(lambda both: both["a"] + both["b"])
    source = LangChainSource(chain)

    def ask(number: int) -> list[Event]:
        return [e for batch in source.events(asked(f"run number {number}")) for e in batch]

    greenlets = [gevent.spawn(ask, number) for number in range(200)]
    gevent.joinall(greenlets, timeout=100, raise_error=True)

    for number, greenlet in enumerate(greenlets):
        assert text_of(greenlet.value).count(f"> run number {number}\n") == 2, f"run {number} is mixed up"
        assert len(of(Usage, greenlet.value)) == 2
        assert sum(f"> run number {other}\n" in text_of(greenlet.value) for other in range(200)) == 1


# Asynchronous code


def test_a_runnable_that_is_asynchronous_only_runs_too() -> None:
    async def shout(text: str) -> str:
        return text.upper()

    events = run(RunnableLambda(shout) | chat_model(), asked("ping me"))

    assert text_of(events).startswith("> PING ME")
    assert of(Usage, events)
    assert isinstance(events[-1], Done)


def test_an_asynchronous_run_is_stopped_within_a_second(upstream: Upstream, asking: Settings) -> None:
    async def same(text: str) -> str:
        return text

    prompt = asked('<<{"token": "async", "tokens": 1000, "pace_ms": 50}>>')
    running = Running(create(RunnableLambda(same) | chat_model(), asking), prompt)
    upstream.wait_for_request("async")
    eventually(lambda: of(Token, running.events))

    assert running.stop() < 1
    upstream.wait_for_close("async", 1.0)


def test_what_an_asynchronous_runnable_raises_is_told_by_its_class() -> None:
    async def fail(_: str) -> str:
        raise ValueError("sk-secret")

    with pytest.raises(RunnableFailed, match="ValueError"):
        run(RunnableLambda(fail))


# Which objects


def test_graphs_are_for_their_own_source() -> None:
    agents = pytest.importorskip("langchain.agents")

    assert accepts(chat_model())
    assert accepts(ANSWERS | chat_model())
    assert not accepts(agents.create_agent(chat_model(), []))
    assert not accepts("a chain")


def test_langsmith_is_not_asked_without_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LANGSMITH_TRACING", "LANGCHAIN_TRACING_V2"):
        monkeypatch.delenv(name, raising=False)
    handlers: list[str] = []

    def look(_: str, config: RunnableConfig) -> str:
        handlers.extend(type(handler).__name__ for handler in config["callbacks"].handlers)  # type: ignore[union-attr]
        return ""

    run(RunnableLambda(look))

    assert handlers == ["AnswerHandler"]


# Written to the log


def started(producers: Producers, log: MemoryLog, source: Source, prompt: Prompt) -> str:
    stream_id = log.create(new_stream(log, producers.worker_id), [encode(Start("st", "chain", "demo", 0))])
    producers.start(Claim(stream_id, 1), 1, source, prompt)
    return stream_id


def test_a_run_is_written_to_the_log_like_any_other(producers: Producers, log: MemoryLog) -> None:
    chain = create(ANSWERS | chat_model() | StrOutputParser(), DEMO)

    stream_id = started(producers, log, chain, asked())

    assert ended(log, stream_id) == "completed"
    events = all_events(log, stream_id)
    assert text_of(events) == "pong"
    assert events[-1].usage["total_tokens"] == 2  # type: ignore[union-attr, index]


def test_a_cancelled_run_is_written_as_cancelled(
    producers: Producers, log: MemoryLog, upstream: Upstream, asking: Settings
) -> None:
    prompt = asked('<<{"token": "cancelled", "tokens": 1000, "pace_ms": 50}>>')
    stream_id = started(producers, log, create(nested_in_threads(), asking), prompt)
    upstream.wait_for_request("cancelled")

    assert producers.cancel(stream_id, 1.0)

    assert log.head(stream_id).state == "cancelled"
    upstream.wait_for_close("cancelled", 1.0)


def test_a_stopped_run_leaves_nothing_for_the_collector_to_complain_of(
    upstream: Upstream, asking: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    complaints: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", lambda complaint: complaints.append(repr(complaint.exc_value)))
    prompt = asked('<<{"token": "left", "tokens": 1000, "pace_ms": 50}>>', modes=["events"])
    running = Running(create(nested_in_threads(), asking), prompt)
    eventually(lambda: len(running.events) > 20)

    running.stop()
    upstream.wait_for_close("left", 1.0)  # before the collector comes
    running.ended = None
    gc.collect()

    assert complaints == []
