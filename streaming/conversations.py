"""The verbs of threads: list, open, show, rename; begin a turn; keep its answer once its run has ended.

The log forgets an ended stream after an hour; its thread keeps the answer. It is
put into its turn by whoever looks at the thread, or by the sweeper, before the
log forgets. Where the stream is gone all the same, the turn says so.
"""

import hashlib
import logging
import time
from collections.abc import Iterator, Mapping

import gevent
from msgspec.structs import replace

from streaming.answers import Answer, Gathering, missing
from streaming.errors import InvalidRequest, NotFound, StreamExpired, StreamingError, StreamLost
from streaming.eventlogs import EventLog, State
from streaming.events import START
from streaming.histories import Room, fresh, with_history
from streaming.runnables import Registered
from streaming.sources import Prompt
from streaming.threads import Item, Thread, Threads, ThreadStore
from streaming.threads._owned import OwnedThreads
from streaming.turns import MAX_TURNS, Question, Shown, Tree, Turn, item_of, turn_of

logger = logging.getLogger(__name__)

KIND = "chat"
STARTING_SECONDS = 15.0
"""How long after its turn a stream may still be on its way into the log."""
ATTEMPTS = 3


class Conversations:
    def __init__(
        self,
        store: Threads,
        log: EventLog,
        room: Room,
        registered: Mapping[str, Registered],
    ) -> None:
        """``room``: what a model is given at most."""
        self.store = store
        self._log = log
        self._room = room
        self._registered = registered

    # Threads

    def listed(self, owner: str, after: str = "", limit: int = 50) -> list[Thread]:
        """Return an owner's threads, the newest first. Raises `NotFound` where ``after`` is gone."""
        return self.store.listed(owner, KIND, after, limit)

    def get(self, thread_id: str) -> Thread:
        """Raises `NotFound`."""
        thread = self.store.get(thread_id)
        if thread.kind != KIND:
            raise NotFound("no such thread")
        return thread

    def open(self, thread_id: str, owner: str, title: str = "") -> Thread:
        """Return the thread, which is made if it is not there. Raises `NotFound` for one of another kind."""
        try:
            return self.get(thread_id)
        except NotFound:
            now = time.time()
            self.store.create(Thread(thread_id, owner, KIND, title, now, now))
            return self.get(thread_id)

    def rename(self, thread_id: str, title: str) -> Thread:
        thread = replace(self.get(thread_id), title=title)
        self.store.save(thread)
        return thread

    # Turns

    def turns(self, thread_id: str, leaf: str = "") -> list[Shown]:
        """Return the turns along a path: the newest one, or that through ``leaf``.

        Each has an answer; one whose run goes on has the answer so far, its state ``running``.
        Raises `NotFound`, also for a ``leaf`` that is not there.
        """
        self.get(thread_id)
        tree = Tree(self.store.outline(thread_id))
        if leaf and leaf not in tree:
            raise NotFound("no such turn in this thread")
        path = tree.path_through(leaf) if leaf else tree.path(tree.newest)
        return [Shown(self.turn(thread_id, turn_id), tree.versions(turn_id)) for turn_id in path]

    def turn(self, thread_id: str, turn_id: str) -> Turn:
        """Return a turn with its answer, or with its answer so far. Raises `NotFound`."""
        item = self.store.item(thread_id, turn_id)
        turn = turn_of(item)
        if turn.answer is None:
            ended = self._ended(item)
            turn = replace(turn, answer=ended or self._so_far(turn_id))
            if ended is not None:
                self.store.settle(item_of(turn, thread_id))
        return turn

    def asked(self, thread_id: str, turn_id: str) -> Turn:
        """Return a turn as it is kept, without looking for its answer. Raises `NotFound`."""
        return turn_of(self.store.item(thread_id, turn_id))

    def begin(self, question: Question, prompt: Prompt, stream_id: str, key: str | None) -> Prompt:
        """Add the turn to its thread, before its run begins; return what the run is to be asked.

        Raises `InvalidRequest`: ``thread_busy`` while another turn is answered, ``unknown_turn``.
        """
        thread = self.open(question.thread, question.owner)
        for _ in range(ATTEMPTS):
            tree = self._free_tree(thread.id, key)
            turn, asked = self._placed(question, prompt, tree, stream_id)
            if self.store.claim(item_of(replace(turn, key=hashed(key)), thread.id), tree.newest):
                if not thread.title and turn.title:
                    self.store.save(replace(thread, title=turn.title))
                return asked
        raise _busy()

    def drop(self, thread_id: str, stream_id: str) -> None:
        """Take back a turn whose run was not begun."""
        try:
            self.store.remove(thread_id, stream_id)
        except StreamingError as error:
            logger.warning("a turn was not taken back", extra={"stream_id": stream_id, "why": error.code})

    def join(self, question: Question, prompt: Prompt, stream_id: str) -> None:
        """See to it that a stream which was there before has its turn: its worker may have died then."""
        try:
            self.store.item(question.thread, stream_id)
        except NotFound:
            thread = self.open(question.thread, question.owner)
            turn, _ = self._placed(question, prompt, Tree(self.store.outline(thread.id)), stream_id)
            self.store.put(item_of(turn, thread.id))

    def forget_answer(self, thread_id: str, stream_id: str, error: StreamingError) -> None:
        """Put ``error`` in the place of what was answered."""
        try:
            turn = turn_of(self.store.item(thread_id, stream_id))
            self.store.put(item_of(replace(turn, answer=missing(error.info())), thread_id))
        except NotFound:
            pass

    # Inside

    def _settle(self, item: Item) -> bool:
        """Keep the answer if its run has ended; say whether it had."""
        answer = self._ended(item)
        if answer is None:
            return False
        turn = replace(turn_of(item), answer=answer)
        self.store.settle(item_of(turn, item.thread))
        return True

    def _ended(self, item: Item) -> Answer | None:
        """Return the answer of a run that has ended, or what stands for one that is lost."""
        try:
            head = self._log.head(item.id)
            return self._gather(item.id, head.state) if head.ended else None
        except NotFound as error:
            if time.time() - item.created < STARTING_SECONDS:
                return None
            return missing(replace(error.info(), message="this question never reached the model"))
        except (StreamLost, StreamExpired) as error:
            return missing(replace(error.info(), message="the answer was not kept: its stream is gone"))

    def _so_far(self, stream_id: str) -> Answer:
        try:
            answer = self._gather(stream_id, "running")
            if answer.last_seq is not None:  # it ended just now
                return replace(answer, state=self._log.head(stream_id).state)
            return answer
        except (NotFound, StreamLost, StreamExpired):
            return Answer("running", [], str(START))

    def _gather(self, stream_id: str, state: State) -> Answer:
        gathering = Gathering()
        seq = 0
        while records := self._log.read(stream_id, seq).records:
            gathering.add(records)
            seq = records[-1].seq
            gevent.sleep(0)  # a long answer is no reason to keep others waiting
        return gathering.answer(state)

    def _free_tree(self, thread_id: str, key: str | None) -> Tree:
        """Return the turns of a thread in which nothing runs. Raises `InvalidRequest` if something does."""
        tree = Tree(self.store.outline(thread_id))
        if len(tree) >= MAX_TURNS:
            raise InvalidRequest(
                f"thread: it has {MAX_TURNS} turns, begin another one", code="too_long", param="thread"
            )
        if not tree.unsettled:
            return tree
        for turn_id in tree.unsettled:
            self._make_free(thread_id, turn_id, key)
        return Tree(self.store.outline(thread_id))

    def _make_free(self, thread_id: str, turn_id: str, key: str | None) -> None:
        try:
            item = self.store.item(thread_id, turn_id)
        except NotFound:  # taken back
            return
        if self._settle(item):
            return
        if not (key and turn_of(item).key == hashed(key)) or self._has_begun(turn_id):
            raise _busy()
        # The same request, whose worker died, or is slower than this repetition.
        self.store.remove(thread_id, turn_id)

    def _has_begun(self, stream_id: str) -> bool:
        try:
            self._log.head(stream_id)
        except NotFound:
            return False
        return True

    def _placed(self, question: Question, prompt: Prompt, tree: Tree, stream_id: str) -> tuple[Turn, Prompt]:
        """Return the turn in its place, and its prompt with the history and the memory it is given."""
        parent = tree.parent_for(question)
        path = tree.path(parent)
        own = question.turn.messages
        turn = replace(
            question.turn,
            stream_id=stream_id,
            parent=parent,
            created=time.time(),
            messages=fresh(own) if path else own,
        )
        runnable = self._registered.get(turn.source)
        remembers = False
        if runnable is not None:
            memory = self._memory_after(question, tree, parent)
            remembers = bool(memory) and runnable.remembers
            new = f"{question.thread}~{stream_id[-8:]}" if len(tree) else question.thread
            turn = replace(turn, memory=memory or new)
            prompt = replace(prompt, thread=turn.memory)
        if not path or remembers or prompt.input is not None:
            return turn, prompt
        return turn, with_history(prompt, own, self._backwards(question.thread, path), self._room)

    def _memory_after(self, question: Question, tree: Tree, parent: str) -> str:
        """Return the memory that ends with the turn before, if this runnable has one that does."""
        if not parent:
            return ""
        before = turn_of(self.store.item(question.thread, parent))
        if before.source != question.turn.source or not before.memory:
            return ""
        for turn_id in tree.since(parent):  # it may have gone on from there
            if turn_of(self.store.item(question.thread, turn_id)).memory == before.memory:
                return ""
        return before.memory

    def _backwards(self, thread_id: str, path: list[str]) -> Iterator[Turn]:
        for turn_id in reversed(path):
            yield turn_of(self.store.item(thread_id, turn_id))


class AllConversations(Conversations):
    """Everybody's: what is swept, and given to each."""

    def __init__(
        self,
        store: ThreadStore,
        log: EventLog,
        room: Room,
        registered: Mapping[str, Registered],
    ) -> None:
        super().__init__(store, log, room, registered)
        self._all = store

    def of(self, owner: str) -> Conversations:
        """Return one principal's conversations."""
        return Conversations(OwnedThreads(self._all, owner), self._log, self._room, self._registered)

    def settle_ended(self) -> None:
        """Put the answers of all runs that have ended into their turns."""
        left = 0
        while items := self._all.unsettled(skip=left):
            left += len(items) - sum(map(self._try_to_settle, items))

    def expire(self, updated_before: float) -> None:
        """Delete threads without a turn since then (seconds since 1970)."""
        while self._all.expire(updated_before):
            gevent.sleep(0.01)

    def close(self) -> None:
        self._all.close()

    def _try_to_settle(self, item: Item) -> bool:
        try:
            return self._settle(item)
        except StreamingError:
            raise
        except Exception:  # one turn that cannot be read must not keep the others from being kept
            logger.exception("an answer was not kept", extra={"stream_id": item.id})
            return False


def hashed(key: str | None) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:32] if key else ""


def _busy() -> InvalidRequest:
    return InvalidRequest(
        "thread: its last question is still being answered; stop that, or wait",
        code="thread_busy",
        param="thread",
        status=409,
    )
