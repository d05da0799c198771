"""Which memory a runnable is given in a thread, and what it is told besides."""

import pytest
from msgspec.structs import replace

from streaming.answers import Answer
from streaming.conversations import Conversations
from streaming.eventlogs import Claim, Page
from streaming.eventlogs.memory import MemoryLog
from streaming.events import Done, Token, encode
from streaming.histories import Room, exchange_of, fresh, with_history
from streaming.runnables import Registered
from streaming.sources import Prompt
from streaming.threads.memory import MemoryThreads
from streaming.turns import Question, Tree, Turn, item_of, turn_of
from tests.doubles import ScriptedSource, new_stream

ROOM = Room(chars=10_000, bytes=100_000, messages=100)


def registered(name: str, remembers: bool) -> Registered:
    return Registered(name, "tools", object(), ScriptedSource(), (), None, remembers)


class Talk:
    """A thread with two runnables that remember, one that does not, and the models."""

    def __init__(self) -> None:
        known = {name: registered(name, name != "forgetful") for name in ("graph", "agent", "forgetful")}
        self.store = MemoryThreads()
        self.conversations = Conversations(self.store, MemoryLog(), ROOM, known)
        self._count = 0

    def ask(self, source: str, text: str, follows: str = "", replaces: str = "", **given: object) -> Prompt:
        """Ask, let it be answered, and return what the source was asked."""
        self._count += 1
        messages = [] if given else [{"role": "user", "content": text}]
        turn = Turn("", "", source, "demo", text, 0, messages=messages, **given)  # type: ignore[arg-type]
        prompt = Prompt("demo", messages, input=turn.input)
        asked = self.conversations.begin(
            Question("t1", "", turn, follows, replaces), prompt, f"st_{self._count:08}", None
        )
        self.answer(f"st_{self._count:08}")
        return asked

    def answer(self, turn_id: str) -> None:
        turn = turn_of(self.store.item("t1", turn_id))
        answer = Answer("completed", [Token(f"re {turn.prompt}")], "1.3")
        self.store.settle(item_of(replace(turn, answer=answer), "t1"))


@pytest.fixture
def talk() -> Talk:
    return Talk()


def texts(prompt: Prompt) -> list[str]:
    return [message["content"] for message in prompt.messages]


def test_the_first_memory_bears_the_name_of_the_thread(talk: Talk) -> None:
    """So a conversation that a graph had before there were threads goes on."""
    asked = talk.ask("graph", "one")
    assert (asked.thread, texts(asked)) == ("t1", ["one"])


def test_what_remembers_is_told_only_what_is_new(talk: Talk) -> None:
    talk.ask("graph", "one")
    asked = talk.ask("graph", "two")
    assert (asked.thread, texts(asked)) == ("t1", ["two"])


def test_what_does_not_remember_is_told_everything(talk: Talk) -> None:
    for source in ("forgetful", "chat"):
        talk = Talk()
        talk.ask(source, "one")
        assert texts(talk.ask(source, "two")) == ["one", "re one", "two"]


@pytest.mark.parametrize("how", ["follows", "replaces"])
def test_where_a_turn_branches_off_a_new_memory_begins_with_the_whole_history(talk: Talk, how: str) -> None:
    talk.ask("graph", "one")
    talk.ask("graph", "two")
    branch = {"follows": "st_00000001"} if how == "follows" else {"replaces": "st_00000002"}
    asked = talk.ask("graph", "deux", **branch)
    assert asked.thread not in ("", "t1")
    assert texts(asked) == ["one", "re one", "deux"]
    on = talk.ask("graph", "trois")
    assert (on.thread, texts(on)) == (asked.thread, ["trois"])


def test_the_first_question_asked_again_begins_a_new_memory(talk: Talk) -> None:
    talk.ask("graph", "one")
    asked = talk.ask("graph", "uno", replaces="st_00000001")
    assert asked.thread not in ("", "t1")
    assert texts(asked) == ["uno"]


def test_a_branch_that_was_left_is_gone_on_with_in_its_own_memory(talk: Talk) -> None:
    talk.ask("graph", "one")
    other = talk.ask("graph", "uno", replaces="st_00000001")
    first = talk.ask("graph", "two", follows="st_00000001")
    assert (first.thread, texts(first)) == ("t1", ["two"])
    second = talk.ask("graph", "dos", follows="st_00000002")
    assert (second.thread, texts(second)) == (other.thread, ["dos"])


def test_another_runnable_is_told_what_the_first_one_was(talk: Talk) -> None:
    talk.ask("graph", "one")
    agent = talk.ask("agent", "two")
    assert agent.thread not in ("", "t1")
    assert texts(agent) == ["one", "re one", "two"]
    chat = talk.ask("chat", "three")
    assert (chat.thread, texts(chat)) == ("", ["one", "re one", "two", "re two", "three"])
    graph = talk.ask("graph", "four")
    assert graph.thread not in ("t1", agent.thread)
    assert len(texts(graph)) == 7


def test_the_answer_to_an_interrupt_goes_to_the_memory_that_asked(talk: Talk) -> None:
    talk.ask("graph", "one")
    asked = talk.ask("graph", "yes", input={"resume": "yes"})
    assert (asked.thread, asked.input, asked.messages) == ("t1", {"resume": "yes"}, [])
    assert texts(talk.ask("chat", "why")) == ["one", "re one", "yes", "re yes", "why"]


def test_a_run_that_ends_while_it_is_looked_at_is_not_told_to_go_on() -> None:
    class Ending(MemoryLog):
        """Ends a stream between two looks at it."""

        def read(self, stream_id: str, after: int, limit: int = 256) -> Page:
            if not self.head(stream_id).ended:
                self.append(Claim(stream_id, 1), 2, [encode(Done("stop", last_seq=2))], end="completed")
            return super().read(stream_id, after, limit)

    log = Ending()
    stream_id = log.create(new_stream(log), [encode(Token("all"))])
    conversations = Conversations(MemoryThreads(), log, ROOM, {})
    conversations.open("t1", "")
    conversations.store.claim(item_of(Turn(stream_id, "", "chat", "m", "q", 1.0), "t1"), "")
    answer = conversations.turn("t1", stream_id).answer
    assert answer is not None
    assert (answer.text, answer.state, answer.finish_reason) == ("all", "completed", "stop")


# Parts


def test_a_path_is_found_in_a_tree_of_many_turns() -> None:
    parents = {"a": "", "b": "a", "c": "b", "d": "a", "e": "d", "x": "", "f": "d"}
    store = MemoryThreads()
    conversations = Conversations(store, MemoryLog(), ROOM, {})
    conversations.open("t", "")
    for name, parent in parents.items():
        store.put(item_of(Turn(name, parent, "chat", "m", "q", 1.0), "t"))
    tree = Tree(store.outline("t"))
    assert (tree.newest, len(tree)) == ("f", 7)
    assert tree.path("c") == ["a", "b", "c"]
    assert tree.path_through("a") == ["a", "d", "f"]
    assert tree.path_through("b") == ["a", "b", "c"]
    assert tree.path_through("x") == ["x"]
    assert tree.versions("b") == ["b", "d"]
    assert tree.versions("x") == ["a", "x"]
    assert tree.since("e") == ["x", "f"]


def test_a_tree_whose_turns_were_lost_has_paths_all_the_same() -> None:
    store = MemoryThreads()
    Conversations(store, MemoryLog(), ROOM, {}).open("t", "")
    for name, parent in {"b": "gone", "c": "b", "ring": "ring"}.items():
        store.put(item_of(Turn(name, parent, "chat", "m", "q", 1.0), "t"))
    tree = Tree(store.outline("t"))
    assert tree.path("c") == ["b", "c"]
    assert tree.path("ring") == ["ring"]


def said(role: str, content: object) -> dict[str, object]:
    return {"role": role, "content": content}


def test_only_what_comes_after_the_last_answer_is_new() -> None:
    a, b, c = said("user", "a"), said("assistant", "b"), said("user", "c")
    assert fresh([a, b, c]) == [c]
    assert fresh([a]) == [a]
    assert fresh([a, b]) == [a, b]
    called = said("assistant", None) | {"tool_calls": [{"id": "1"}]}
    result = said("tool", "9") | {"tool_call_id": "1"}
    assert fresh([a, called, result]) == [a, called, result]
    assert fresh([]) == []


def test_a_history_has_no_more_bytes_than_a_request_may_have() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1000}}
    turn = Turn("st", "", "chat", "m", "q", 1.0, messages=[said("user", [image])])
    turn = replace(turn, answer=Answer("completed", [Token("yes")], "1.1"))
    own = [said("user", "q")]
    asked = with_history(Prompt("m", own), own, [turn] * 10, Room(1000, 3500, 100))
    assert len(asked.messages) == 2 * 3 + 1
    assert asked.messages[-1] == own[0]


def test_a_turn_without_an_answer_is_no_exchange() -> None:
    turn = Turn("st", "", "chat", "m", "q", 1.0, messages=[said("user", "q")])
    assert exchange_of(turn) == []
    assert exchange_of(replace(turn, answer=Answer("failed", [], "0.0"))) == []


@pytest.mark.parametrize(
    ("prompt", "title"),
    [
        ("", ""),
        ("  \n ", ""),
        ("x" * 60, "x" * 60),
        ("x" * 61, "x" * 60 + "…"),
        ("word " * 12 + "end", "word word word word word word word word word word word word…"),
        ("a\n\tb", "a b"),
    ],
)
def test_a_title_is_the_beginning_of_what_was_asked(prompt: str, title: str) -> None:
    assert Turn("st", "", "chat", "m", prompt, 1.0).title == title
