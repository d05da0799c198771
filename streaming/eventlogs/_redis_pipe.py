"""One connection for the commands of all greenlets of a worker.

What is asked in one turn of the event loop, or while an answer is awaited, is
sent together; answers come back in the order asked. So a busy worker pays for
few system calls, and the server sees two connections of it, not one for each
reader.

When the connection is lost, whatever has no answer yet is asked again on the
next one until its time is up. A command that must not be done twice comes with
a second form, which finds out whether the first was done.

Source: https://redis.io/docs/latest/develop/using-commands/pipelining/
"""

import logging
import os
import random
import time
from collections.abc import Callable
from typing import Any

import gevent
import redis
import redis.exceptions as errors
from gevent.event import Event as Flag
from gevent.hub import Waiter

from streaming.errors import StoreFull, StoreUnavailable
from streaming.eventlogs._redis_scripts import Command
from streaming.eventlogs._redis_server import LOST, Connection, pack

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 10.0
BACKOFF_SECONDS = (0.05, 1.0)
"""First and longest pause between two attempts to connect."""
WAIT_MILLISECONDS = 100
WAIT_AGAIN_SECONDS = 10.0

# What a server says that cannot do it now, and did nothing; redis-py has classes for some of it.
_LATER = ("UNBLOCKED", "NOREPLICAS", "BUSY", "MISCONF")
_LATER_CLASSES = (errors.NoScriptError, errors.ReadOnlyError, errors.MasterDownError)


class _Question:
    __slots__ = ("again", "deadline", "durable", "packed", "waiter")

    def __init__(self, command: Command, again: Command | None, deadline: float, durable: bool) -> None:
        self.packed = pack(command)
        self.again = again
        """To be asked instead, once an answer may have been lost."""
        self.deadline = deadline
        self.durable = durable
        self.waiter: Waiter[Any] = Waiter()


class Pipe:
    """Belongs to the process, and the event loop, that made it."""

    def __init__(self, connect: Callable[[], Connection], wait_replicas: int = 0) -> None:
        """``connect`` returns a connection that is ready; it blocks, and raises one of `LOST`."""
        self._connect = connect
        self._wait_replicas = wait_replicas
        self.patience_seconds = PATIENCE_SECONDS
        """How long an answer is waited for, if nothing else is said."""
        self._wait_from = 0.0
        self._pid = os.getpid()
        self._queue: list[_Question] = []
        self._asked = Flag()
        self._connection: Connection | None = None
        self._failures = 0
        self._lost_at: float | None = None
        self._restored_at = float("-inf")
        self._busy = False
        self.closed = False
        self._stopped = False
        gevent.spawn(self._serve)

    @property
    def waiting(self) -> int:
        """How many commands are to be sent."""
        return len(self._queue)

    @property
    def restored_seconds(self) -> float:
        """How long ago a lost connection was made again; infinite if none was lost."""
        return time.monotonic() - self._restored_at

    def ask(
        self,
        command: Command,
        again: Command | None = None,
        patience_seconds: float | None = None,
        durable: bool = False,
    ) -> Any:
        """Return the answer. Blocks until it is there.

        ``again`` is asked instead once an answer may have been lost; ``durable``
        waits for replicas where that was asked for. Raises `StoreUnavailable`
        when there is none in time, and `StoreFull`.
        """
        question = self._put(command, again, patience_seconds, durable)
        answer = question.waiter.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def post(self, command: Command) -> None:
        """Ask without caring for the answer. Never blocks."""
        self._put(command, None, None, False)

    def close(self, seconds: float = 1.0) -> None:
        """Wait for what is under way, as long as the connection lasts. Then nothing can be asked."""
        if self.closed:
            return
        self.closed = True
        deadline = time.monotonic() + seconds
        while (self._queue or self._busy) and not self._failures and time.monotonic() < deadline:
            gevent.sleep(0.002)
        # The greenlet ends by itself: killed while it connects, it would leave a socket open.
        self._stopped = True
        self._asked.set()
        self._hang_up()
        queue, self._queue = self._queue, []
        closed = _unavailable("this event log was closed")
        gevent.get_hub().loop.run_callback(_answer, [(question, closed) for question in queue])

    def _put(
        self, command: Command, again: Command | None, patience: float | None, durable: bool
    ) -> _Question:
        if self.closed or os.getpid() != self._pid:
            raise StoreUnavailable("this event log was closed, or opened in another process")
        seconds = self.patience_seconds if patience is None else patience
        question = _Question(command, again, time.monotonic() + seconds, durable)
        self._queue.append(question)
        self._asked.set()
        return question

    def _serve(self) -> None:
        while not self._stopped:
            self._asked.wait()
            self._asked.clear()
            while self._queue and not self._stopped:
                try:
                    self._make_ready()
                    self._exchange()
                except (*LOST, redis.RedisError) as error:
                    self._note_loss(error)
                except Exception:
                    if not self._stopped:
                        logger.exception("asking the event log's server broke")
                    self._note_loss(None)
        self._hang_up()

    def _make_ready(self) -> Connection:
        if self._connection is None:
            self._connection = self._connect()
            if self._lost_at is not None:
                seconds = round(time.monotonic() - self._lost_at, 3)
                logger.info("the event log's server answers again", extra={"seconds": seconds})
                self._lost_at = None
                self._restored_at = time.monotonic()
        return self._connection

    def _exchange(self) -> None:
        """Send all that is asked; hand out the answers, and put back what got none."""
        connection = self._make_ready()
        questions, self._queue = self._queue, []
        self._busy = True
        answers: list[tuple[_Question, Any]] = []
        refused: redis.ResponseError | None = None
        try:
            connection.send_packed_command([self._packed(questions)], check_health=False)
            for question in questions:
                answer = _read(connection)
                if question.durable:
                    self._check_replicas(_read(connection))
                if isinstance(answer, redis.ResponseError) and _is_passing(answer):
                    refused = answer
                else:
                    answers.append((question, answer))
        finally:
            self._busy = False
            if len(answers) < len(questions):
                given = {id(question) for question, _ in answers}
                left = [question for question in questions if id(question) not in given]
                for question in left:
                    question.packed = pack(question.again) if question.again else question.packed
                self._queue = left + self._queue
            gevent.get_hub().loop.run_callback(_answer, answers)
        if refused is not None:
            raise redis.ConnectionError(str(refused))
        self._failures = 0

    def _packed(self, questions: list[_Question]) -> bytes:
        packed: list[bytes] = []
        for question in questions:
            packed.append(question.packed)
            question.durable = question.durable and self._waits
            if question.durable:
                packed.append(pack(("WAIT", self._wait_replicas, WAIT_MILLISECONDS)))
        return b"".join(packed)

    def _note_loss(self, error: Exception | None) -> None:
        self._hang_up()
        if self._stopped:
            return
        now = time.monotonic()
        if self._lost_at is None:
            self._lost_at = now
            logger.warning("the event log's server does not answer", extra={"why": str(error)})
        first, longest = BACKOFF_SECONDS
        # The first attempt comes at once: most losses are a connection that was closed.
        pause = min(longest, first * 2 ** (self._failures - 1)) if self._failures else 0.0
        self._failures += 1
        overdue = [question for question in self._queue if question.deadline < now + pause]
        self._queue = [question for question in self._queue if question.deadline >= now + pause]
        failure = _unavailable("the event log's server does not answer")
        gevent.get_hub().loop.run_callback(_answer, [(question, failure) for question in overdue])
        gevent.sleep(pause * random.uniform(0.5, 1.0))

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()

    @property
    def _waits(self) -> bool:
        return self._wait_replicas > 0 and time.monotonic() >= self._wait_from

    def _check_replicas(self, count: Any) -> None:
        if not isinstance(count, int) or count < self._wait_replicas:
            # Do not hold up everything that is asked while there is no replica.
            self._wait_from = time.monotonic() + WAIT_AGAIN_SECONDS
            logger.warning("replicas were not in time for the end of a stream", extra={"replicas": count})


def _read(connection: Connection) -> Any:
    """Return the next answer, also when it is an error of that one command."""
    try:
        return connection.read_response(disconnect_on_error=False)
    except redis.ResponseError as error:
        return error


def _is_passing(error: redis.ResponseError) -> bool:
    return isinstance(error, _LATER_CLASSES) or str(error).startswith(_LATER)


def _answer(answers: list[tuple[_Question, Any]]) -> None:
    """Switch to those who wait. Runs in the hub."""
    for question, answer in answers:
        question.waiter.switch(_as_own_error(answer) if isinstance(answer, Exception) else answer)


def _as_own_error(error: Exception) -> Exception:
    if isinstance(error, redis.OutOfMemoryError) or str(error).startswith("OOM"):
        return StoreFull("the memory of the event log's server is full", retry_after_seconds=60)
    if isinstance(error, redis.RedisError):
        logger.error("the event log's server refused a command", extra={"why": str(error)})
        return _unavailable("the event log's server refuses this")
    return error


def _unavailable(message: str) -> StoreUnavailable:
    return StoreUnavailable(message, retry_after_seconds=1)
