"""The service's verbs: start a stream, follow it, look at it, cancel it, erase it."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import MappingProxyType
from typing import Any, Literal, overload

import gevent
import msgspec

from streaming import traces
from streaming.answers import Answer, Gathering, snapshot_of
from streaming.answers import Snapshot as Snapshot
from streaming.audience import Audience
from streaming.conversations import AllConversations, Conversations
from streaming.doctor.stores import Store
from streaming.errors import (
    InvalidRequest,
    NotFound,
    Overloaded,
    StoreFull,
    StoreUnavailable,
    StreamExpired,
    StreamingError,
    StreamLost,
)
from streaming.eventlogs import NO_STREAM, Claim, EventLog, Head, NewStream, State, new_stream_id
from streaming.events import (
    START,
    Cursor,
    Start,
    Status,
    encode,
)
from streaming.histories import Room
from streaming.limiter import Limiter, Rate
from streaming.observers import Nobody, Observer, RunFacts
from streaming.producer import Limits, OnDisconnect, Producers
from streaming.questions import Questions
from streaming.reader import LagProbe, Reader
from streaming.readiness import Readiness
from streaming.runnables import Registered
from streaming.settings import Settings
from streaming.sources import Prompt, Relay, Source
from streaming.threads import ThreadStore
from streaming.threads.memory import MemoryThreads
from streaming.turns import Question

logger = logging.getLogger(__name__)

CANCEL_SECONDS = 3.0
"""How long an owner may take to cancel a run, before the canceller ends it itself."""
CONTINUE = "Your answer was cut off. Go on exactly where it stopped, without repeating anything."
ATTENDING_SECONDS = 86_400.0
TOMBSTONE_SECONDS = 86_400.0
TWIN_SECONDS = 1.0
"""How long the second of two equal requests in a thread waits for the stream of the first."""


class Order(msgspec.Struct, frozen=True):
    """What somebody asked for, already checked."""

    source: str
    prompt: Prompt
    asked: dict[str, Any]
    """What to show of the request later."""
    on_disconnect: OnDisconnect = "grace"
    timeout_seconds: float | None = None
    key: str | None = None
    fingerprint: str = ""
    request_id: str | None = None
    continues: str = ""
    """The stream whose text is to be gone on with."""
    question: Question | None = None
    """Where it is a turn of a thread."""
    owner: str = ""
    """The id of the principal who asks, and whose the stream will be."""


class Started(msgspec.Struct, frozen=True):
    stream_id: str
    replayed: bool
    """The stream was there: the same was asked under the same key before."""
    asked: dict[str, Any] = {}
    """What to show of the request, as it was let in."""


class Receipt(msgspec.Struct, frozen=True):
    """What a cancel did. ``upstream`` is ``closed``, ``none`` (the run had ended) or ``unknown``."""

    stream_id: str
    state: State | Literal["cancelling"]
    cursor: str
    upstream: Literal["closed", "unknown", "none"]


class Streams:
    def __init__(
        self,
        log: EventLog,
        load_source: Callable[[str], Source],
        settings: Settings,
        relay: Relay | None = None,
        registered: Mapping[str, Registered] = MappingProxyType({}),
        threads: ThreadStore | None = None,
        observer: Observer | None = None,
        limiter: Limiter | None = None,
        asking: Callable[[], str] = lambda: "",
        lag_probe: LagProbe | None = None,
        reading: Callable[[Reader], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """``asking`` returns the id of the principal who asks: what is another's does not exist for it.

        ``reading`` is entered with each reader while it reads, in the greenlet of who asked for it.

        Without a ``limiter`` nobody is held to anything but what goes for every worker.
        """
        self._limiter = limiter
        self._seated = 0
        self._asking = asking
        self._reading = reading
        self._observer = observer or Nobody()
        self._lag_probe = lag_probe
        self._log = log
        self._load_source = load_source
        self._settings = settings
        self._audience = Audience()
        self._readers: set[Reader] = set()
        self._guests: set[Callable[[], None]] = set()
        self._draining = False
        self._producers = Producers(
            log,
            self._audience,
            Limits(
                settings.max_streams,
                settings.max_stream_bytes,
                settings.max_stream_events,
                settings.stream_timeout_seconds,
                settings.disconnect_grace_seconds,
                settings.lease_seconds,
            ),
            observer,
            settings.price_of,
        )
        self.questions = Questions(relay, settings.max_streams)
        """What is asked besides runs."""
        self.registered = registered
        """The runnables, by the name of their source."""
        room = Room(settings.max_prompt_chars, settings.max_body_bytes, settings.max_messages)
        self._conversations = AllConversations(threads or MemoryThreads(), log, room, registered)
        self._readiness = Readiness(self._producers.check_store)
        self._expiring = gevent.spawn(self._expire_old)

    @property
    def running(self) -> int:
        """How many streams this worker produces now."""
        return len(self._producers)

    @property
    def threads(self) -> Conversations:
        """The conversations of who asks."""
        return self._conversations.of(self._asking())

    @property
    def reading(self) -> int:
        """How many readers there are on this worker now."""
        return len(self._readers)

    @property
    def writes_waiting(self) -> int:
        """How many writes of this worker the store has yet to take."""
        return self._log.waiting

    @property
    def draining(self) -> bool:
        """It takes no new runs, and is about to end."""
        return self._draining

    def check_ready(self) -> None:
        """Raise `Overloaded`, `StoreUnavailable` or `StoreFull` when a run could not be started now.

        Blocks for a write to the store, but not for long.
        """
        self._producers.check_room()
        self._readiness.check_store()

    def describe_store(self) -> Store:
        """Return what an operator should know of the store now. Blocks."""
        return self._log.describe()

    def start(self, order: Order) -> Started:
        """Create the stream and begin to produce it. Returns once its first event is committed.

        Raises `InvalidRequest` for an unknown source, `IdempotencyMismatch`, `Overloaded`,
        `RateLimited` and `BudgetSpent`; for a stream to continue as `Reader`.
        """
        source = self._load_source(order.source)
        order = msgspec.structs.replace(order, key=_own(order.key, order.owner))
        order, most_running = self._admitted(order)
        threads = self._conversations.of(order.owner)
        prompt = self._continuing(order.prompt, order.continues) if order.continues else order.prompt
        stream_id = new_stream_id(self._log.store_id)
        first = [
            encode(Start(stream_id, order.source, prompt.model, int(time.time()), order.continues)),
            encode(Status("connecting", 0)),
        ]
        asked = msgspec.json.encode(order.asked)
        new = NewStream(
            stream_id,
            self._producers.worker_id,
            asked,
            order.key,
            order.fingerprint,
            order.owner,
            most_running,
        )
        with self._producers.room():
            with self._in_thread(order, prompt, stream_id) as placed:
                found = self._create(new, first)
            if found != stream_id:
                if order.question is not None:
                    threads.drop(order.question.thread, stream_id)
                    threads.join(order.question, prompt, found)
                return Started(found, True, order.asked)
            asked_in = traces.current()
            facts = RunFacts(
                stream_id,
                order.owner,
                order.source,
                prompt.model,
                order.request_id,
                asked_in.sibling() if asked_in else None,
            )
            self._producers.start(
                Claim(stream_id, gen=1),
                len(first),
                source,
                # What a runnable remembers of others is not to be had by naming their thread.
                msgspec.structs.replace(placed, thread=_own(placed.thread, order.owner, "~")),
                order.on_disconnect,
                order.timeout_seconds,
                facts,
            )
        logger.info("stream started", extra={"stream_id": stream_id, **facts.for_log()})
        return Started(stream_id, False, order.asked)

    def _admitted(self, order: Order) -> tuple[Order, int]:
        """Let it in, within what its sender may use; and how many of the sender's streams may run then."""
        if self._limiter is None:
            return order, 0
        self._producers.check_room()
        if order.key and self._log.find(order.key):
            return order, 0  # it was let in before, and only joins what came of that
        prompt, most_running = self._limiter.admit(order.prompt, order.source in self.registered)
        asked = order.asked
        if prompt.response and "max_output_tokens" in asked.get("response", {}):
            said = {**asked["response"], "max_output_tokens": prompt.response["max_output_tokens"]}
            asked = {**asked, "response": said}
        return msgspec.structs.replace(order, prompt=prompt, asked=asked), most_running

    def rate(self) -> Rate | None:
        """Return how who asks stands with the creates of this minute; ``None`` without a limit."""
        return self._limiter.rate() if self._limiter else None

    def may_name(self, model: str) -> bool:
        """Say whether who asks may name this model, or runnable."""
        return self._limiter is None or self._limiter.may_name(model)

    def check_question(self, model: str) -> None:
        """Let in what asks a model and is no run. Raises as ``start``."""
        if self._limiter:
            self._limiter.admit_question(model)

    def check_poll(self) -> None:
        """Count a look at a stream. Raises `RateLimited`."""
        if self._limiter:
            self._limiter.check_poll()

    def check_seats(self) -> None:
        """Raise `Overloaded` if this worker holds as many connections as it may: the rest is reserved."""
        if self._seated >= self._settings.max_readers:
            raise Overloaded("too many are reading here", code="readers", retry_after_seconds=5)

    @contextmanager
    def seated(self, reader: Reader | None = None) -> Iterator[None]:
        """Hold a connection of this worker, for ``reader`` or for who reads no stream.

        Raises `Overloaded` and `RateLimited`; so do it before an answer has begun.
        """
        self.check_seats()
        self._seated += 1
        try:
            if self._limiter and reader:
                with self._limiter.reading(reader.stream_id, self._producers.worker_id):
                    yield
            else:
                yield
        finally:
            self._seated -= 1

    def _create(self, new: NewStream, first: Sequence[bytes]) -> str:
        try:
            return self._log.create(new, first)
        except (StoreUnavailable, StoreFull) as error:
            self._observer.store_failed(error.code)
            raise

    @contextmanager
    def _in_thread(self, order: Order, prompt: Prompt, stream_id: str) -> Iterator[Prompt]:
        """Give the run its turn in its thread, which is taken back if the stream cannot be created."""
        question = order.question
        if question is None or (order.key and self._log.find(order.key)):
            yield prompt
            return
        threads = self._conversations.of(order.owner)
        try:
            placed = threads.begin(question, prompt, stream_id, order.key)
        except InvalidRequest as error:
            # It may be this very request that is in the way: it came twice, at the same time.
            if error.code != "thread_busy" or not order.key or not self._appears(order.key):
                raise
            yield prompt
            return
        try:
            yield placed
        except BaseException:
            threads.drop(question.thread, stream_id)
            raise

    def _appears(self, key: str) -> bool:
        """Say whether a stream has ``key``, waiting a little for one that is just being created."""
        deadline = time.monotonic() + TWIN_SECONDS
        while not (found := self._log.find(key)) and time.monotonic() < deadline:
            gevent.sleep(0.02)
        return found is not None

    def _continuing(self, prompt: Prompt, stream_id: str) -> Prompt:
        said = self.snapshot(stream_id)
        if said.state == "running":
            raise InvalidRequest(
                "continues: that stream is still running", code="running", param="continues", status=409
            )
        if not said.text:
            return prompt
        before = [{"role": "assistant", "content": said.text}, {"role": "user", "content": CONTINUE}]
        return msgspec.structs.replace(prompt, messages=[*prompt.messages, *before])

    def owner_of(self, stream_id: str) -> str:
        """Return the id of the principal whose the stream is, whoever asks. Raises as `EventLog.head`."""
        return self._log.head(stream_id).owner

    def find(self, key: str) -> str | None:
        """Return the id of the stream that who asks started under ``key``."""
        return self._log.find(_own(key, self._asking()))

    def _head(self, stream_id: str) -> Head:
        """Return the head of a stream of who asks. Raises as `EventLog.head`, for another's `NotFound`.

        Every verb that is given an id comes through here first.
        """
        head = self._log.head(stream_id)
        if head.owner != self._asking():
            raise NotFound(NO_STREAM)
        return head

    def asked(self, stream_id: str) -> dict[str, Any]:
        """Return what was asked for, as the order said it. Raises as `EventLog.head`."""
        self._head(stream_id)
        asked: dict[str, Any] = msgspec.json.decode(self._log.request(stream_id))
        return asked

    def reader(self, stream_id: str, after: Cursor = START) -> Reader:
        """Return a place in the stream after ``after``. Raises as `Reader`."""
        self._head(stream_id)
        return Reader(self._log, stream_id, after, self._lag_probe)

    @contextmanager
    def attending(self, reader: Reader, seated: bool = False) -> Iterator[None]:
        """Let ``reader`` follow, and count it as present meanwhile. Raises as ``seated``, unless it is."""
        if not seated:
            with self.seated(reader), self.attending(reader, seated=True):
                yield
            return
        stream_id = reader.stream_id
        self._audience.join(stream_id)
        if elsewhere := self._is_elsewhere(reader):
            self._attend_elsewhere(stream_id, ATTENDING_SECONDS)
        try:
            with self._opened(reader):
                yield
        finally:
            self._audience.leave(stream_id)
            if not self._audience.present(stream_id):
                if elsewhere:
                    self._attend_elsewhere_no_more(stream_id)
                else:
                    self._producers.left(stream_id)

    @contextmanager
    def hosting(self, leave: Callable[[], None]) -> Iterator[None]:
        """Call ``leave`` when this worker begins to drain, at once if it has begun.

        For connections that stay open without a run. It must not block.
        """
        self._guests.add(leave)
        try:
            if self._draining:
                leave()
            with self.seated():
                yield
        finally:
            self._guests.discard(leave)

    def snapshot(
        self, stream_id: str, after: Cursor = START, wait_seconds: float = 0.0, events: bool = False
    ) -> Snapshot:
        """Return what the stream holds after ``after``, with its ``events`` on request.

        With ``wait_seconds`` and nothing new, wait so long for something. Raises as `Reader`.
        """
        return snapshot_of(self.answer(stream_id, after, wait_seconds), stream_id, events)

    def answer(self, stream_id: str, after: Cursor = START, wait_seconds: float = 0.0) -> Answer:
        """Return the same as the answer it is; its end is told whatever ``after`` is. Raises as `Reader`."""
        reader = self.reader(stream_id, after)
        seat = self.seated(reader) if wait_seconds else nullcontext()
        with seat, self._opened(reader):
            self._note_poll(reader, wait_seconds)
            reader.tell_end_again()
            gathering = Gathering()
            records = reader.next(wait_seconds)
            while records:
                gathering.add(records)
                records = reader.next(0)
            state = self._log.head(stream_id).state if reader.ended else "running"
            return gathering.answer(state, reader.cursor)

    def cancel(self, stream_id: str) -> Receipt:
        """End a run, wherever it is produced; wait until it has ended.

        Idempotent. The receipt says which state won.
        """
        return self._cancel(stream_id, self._head(stream_id))

    def stop(self, stream_id: str) -> Receipt:
        """Do as ``cancel`` does, whoever asks."""
        return self._cancel(stream_id, self._log.head(stream_id))

    def _cancel(self, stream_id: str, head: Head) -> Receipt:
        if head.ended:
            return self._receipt(stream_id, "none")
        if self._producers.is_running(stream_id):
            closed = self._producers.cancel(stream_id, CANCEL_SECONDS)
        else:
            self._log.request_cancel(stream_id)
            closed = self._wait_for_end(stream_id, CANCEL_SECONDS)
        if not closed and self._log.head(stream_id).gen == head.gen:  # else somebody is at it
            self._producers.take_over(stream_id, None, force=True)
        return self._receipt(stream_id, "closed" if closed else "unknown")

    def erase(self, stream_id: str) -> None:
        """Cancel the run if it goes on, then forget its text; the id answers `StreamExpired`."""
        self.cancel(stream_id)
        thread_id = self.asked(stream_id).get("thread", "")
        self._log.erase(stream_id)
        if thread_id:
            self.threads.forget_answer(thread_id, stream_id, StreamExpired("this answer was erased"))

    def delete_thread(self, thread_id: str) -> None:
        """Forget a conversation, and stop and erase the runs in it. Raises `NotFound`."""
        self.threads.get(thread_id)
        kept = self._settings.retention_seconds + self._settings.stream_timeout_seconds
        for turn in self.threads.store.outline(thread_id):
            if not turn.settled or turn.created > time.time() - 2 * kept:  # older streams are gone
                self._erase_if_there(turn.id)
        self.threads.store.delete(thread_id)

    def _erase_if_there(self, stream_id: str) -> None:
        try:
            self.cancel(stream_id)
            self._log.erase(stream_id)
        except (NotFound, StreamLost, StreamExpired):
            pass

    def drain(self, run_seconds: float, reader_seconds: float) -> None:
        """Take no new runs; let those here end for ``run_seconds``, then end them as interrupted.

        Guests are told to leave at once.

        Then let go of the readers that are left, of streams produced elsewhere,
        spread over ``reader_seconds``: they come back to another worker.
        """
        drained_by = time.monotonic() + run_seconds
        self._draining = True
        for leave in list(self._guests):
            leave()
        self.questions.refuse()
        self._producers.shutdown(run_seconds)
        self.questions.end(drained_by - time.monotonic())
        left = list(self._readers)
        for reader in left:
            reader.leave()
            gevent.sleep(reader_seconds / len(left))

    def close(self) -> None:
        """Close the log. To be called when nothing runs and nobody reads any more."""
        self._expiring.kill()
        self._producers.close()
        self._observer.close()
        if self._limiter:
            self._limiter.close()
        self._conversations.close()
        self._log.close()

    @contextmanager
    def _opened(self, reader: Reader) -> Iterator[None]:
        self._readers.add(reader)
        try:
            with reader, self._reading(reader):
                yield
        finally:
            self._readers.discard(reader)

    def _is_elsewhere(self, reader: Reader) -> bool:
        return not reader.ended and not self._producers.is_running(reader.stream_id)

    def _note_poll(self, reader: Reader, wait_seconds: float) -> None:
        if reader.ended:
            return
        self._audience.poll(reader.stream_id)
        if self._is_elsewhere(reader) and not self._audience.present(reader.stream_id):
            seconds = wait_seconds + self._settings.disconnect_grace_seconds
            self._attend_elsewhere(reader.stream_id, seconds)

    def _attend_elsewhere(self, stream_id: str, seconds: float) -> None:
        try:
            self._log.attend(stream_id, self._producers.worker_id, seconds)
        except StreamingError as error:
            # Reading goes on: it is worth more than being known to read.
            logger.warning("a reader was not noted", extra={"stream_id": stream_id, "why": error.code})

    def _attend_elsewhere_no_more(self, stream_id: str) -> None:
        self._attend_elsewhere(stream_id, 0)
        polled_ago = time.monotonic() - self._audience.last_polled(stream_id)
        if polled_ago < self._settings.disconnect_grace_seconds:
            self._attend_elsewhere(stream_id, self._settings.disconnect_grace_seconds - polled_ago)

    def _wait_for_end(self, stream_id: str, seconds: float) -> bool:
        head = self._log.head(stream_id)
        if head.ended:
            return True
        deadline = time.monotonic() + seconds
        with Reader(self._log, stream_id, START) as reader:
            reader.cursor = Cursor(head.gen, head.last_seq)
            while not reader.ended and (left := deadline - time.monotonic()) > 0:
                reader.next(left)
        return reader.ended

    def _receipt(self, stream_id: str, upstream: Literal["closed", "unknown", "none"]) -> Receipt:
        head = self._log.head(stream_id)
        return Receipt(
            stream_id,
            head.state if head.ended else "cancelling",
            str(Cursor(head.gen, head.last_seq)),
            upstream,
        )

    def _expire_old(self) -> None:
        pause_seconds = min(60.0, self._settings.retention_seconds / 4)
        while True:
            gevent.sleep(pause_seconds)
            self._chore("old streams were not erased", self._expire_streams)
            old = time.time() - self._settings.thread_retention_seconds
            if self._limiter:
                self._chore("old counters and accounts were not forgotten", self._limiter.expire)
            self._chore("old threads were not deleted", self._conversations.expire, old)

    def _expire_streams(self) -> None:
        """Keep the answers that belong to threads, then let the log forget."""
        kept = self._settings.retention_seconds
        try:
            self._conversations.settle_ended()
        except StreamingError:
            kept *= 2  # not for ever: what is full may have to forget before it can keep
            raise
        finally:
            old = time.time() - kept
            while self._log.expire(old, old - TOMBSTONE_SECONDS):
                gevent.sleep(0.01)

    def _chore(self, failure: str, chore: Callable[..., None], *arguments: Any) -> None:
        try:
            chore(*arguments)
        except StreamingError:
            logger.warning("%s, to be tried again", failure, exc_info=True)


@overload
def _own(name: str, owner: str, mark: str = " ") -> str: ...
@overload
def _own(name: str | None, owner: str, mark: str = " ") -> str | None: ...
def _own(name: str | None, owner: str, mark: str = " ") -> str | None:
    """Return a name that an owner shares with nobody; ``mark`` is in no name that a client gives.

    >>> _own("POST /streams k1", "key_4f2a9c01")
    'key_4f2a9c01 POST /streams k1'
    """
    return f"{owner}{mark}{name}" if name and owner else name
