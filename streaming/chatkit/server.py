"""The library's server: how a message is answered here.

The answer to a message is a run: in the log, bounded, cancelled and taken over
like any other. This follows it for the client that asked. The library's own way
to stop is to close the connection, which it hears of as ``CancelledError``.
"""

import logging
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from chatkit.actions import Action
from chatkit.errors import CustomStreamError
from chatkit.server import ChatKitServer
from chatkit.store import AttachmentStore
from chatkit.types import (
    Attachment,
    AttachmentCreateParams,
    AudioInput,
    FeedbackKind,
    StreamOptions,
    StructuredInputItem,
    SyncCustomActionResponse,
    ThreadItem,
    ThreadMetadata,
    ThreadStreamEvent,
    TranscriptionResult,
    UserMessageItem,
    WidgetItem,
)

from streaming.chatkit import history
from streaming.chatkit.asking import answer_of
from streaming.chatkit.driving import pause
from streaming.chatkit.store import ThreadsAndItems, no_attachments
from streaming.chatkit.telling import Telling
from streaming.chatkit.visits import Question, Visit
from streaming.errors import Interrupted, InvalidRequest, StreamingError
from streaming.events import decode
from streaming.runnables import Registered
from streaming.settings import Settings
from streaming.streams import Streams
from streaming.turns import Turn

logger = logging.getLogger(__name__)

MAX_FEEDBACK_ITEMS = 100
MAX_ITEMS = 2000
NO_ACTIONS = "This service shows no widgets, so nothing can be done with them."
SOURCE, MEMORY_OF = "source", "memory_of"
"""In a thread's metadata: what answers in it, and the last turn its runnable remembers."""


class Server(ChatKitServer[Visit]):
    """Its coroutines are to be driven (`driving`), in the greenlet of the request."""

    store: ThreadsAndItems

    def __init__(self, streams: Streams, store: ThreadsAndItems, settings: Settings) -> None:
        super().__init__(store, _NoAttachments())
        self._streams = streams
        self._settings = settings

    def check_free(self, thread_id: str) -> None:
        """Raise `InvalidRequest` if the thread takes no message now, or any more, and `NotFound`."""
        last = self.store.last_turn(thread_id)
        if self.store.count(thread_id) >= MAX_ITEMS:
            raise InvalidRequest(
                f"this thread has {MAX_ITEMS} entries: begin another one",
                code="too_long",
                param="params.thread_id",
            )
        if last is not None and last.answer is not None and last.answer.state == "running":
            raise _busy()

    # Answering

    async def respond(
        self, thread: ThreadMetadata, input_user_message: UserMessageItem | None, context: Visit
    ) -> AsyncIterator[ThreadStreamEvent]:
        context.check_present()
        if input_user_message is not None and not thread.title:
            thread.title = history.title_of(history.text_of(input_user_message)) or None
        try:
            telling = self._start(thread, context)
            await self.store.save_thread(thread, context)
            reader = self._streams.reader(context.stream_id)
            with self._streams.attending(reader), context.following(reader):
                while not reader.ended:
                    records = reader.next(self._settings.heartbeat_seconds)
                    context.check_present()
                    if reader.left:
                        raise Interrupted("the service is restarting", code="shutdown")
                    for event in telling.tell(decode(record.payload) for record in records):
                        yield event
                        context.check_present()
                    if not records:
                        await pause()
                        context.check_present()
            self.store.keep(thread.id, context.stream_id)
        except StreamingError as error:
            raise CustomStreamError(_sentence(str(error)), allow_retry=error.retryable) from error
        if (failure := telling.failure) is not None:
            raise CustomStreamError(_sentence(failure.message), allow_retry=failure.retryable)

    def get_stream_options(self, thread: ThreadMetadata, context: Visit) -> StreamOptions:
        """Show the stop button only where leaving stops: the button does no more than leave."""
        return StreamOptions(allow_cancel=context.may_stop)

    async def handle_stream_cancelled(
        self, thread: ThreadMetadata, pending_items: list[ThreadItem], context: Visit
    ) -> None:
        if not context.may_stop:
            return  # the run goes on, and is found when the thread is loaded
        if context.stream_id:
            try:
                self._streams.cancel(context.stream_id)
                self.store.keep(thread.id, context.stream_id)
            except StreamingError as error:
                # The log holds what there is, and whoever loads the thread finds it.
                logger.warning(
                    "a stopped answer was not kept yet",
                    extra={"stream_id": context.stream_id, "why": error.code},
                )
        # What was said so far is in the log already; this adds the note for the model.
        await super().handle_stream_cancelled(thread, [], context)

    def _start(self, thread: ThreadMetadata, context: Visit) -> Telling:
        """Start the run that answers a thread, and note it there as its newest turn."""
        source: str = thread.metadata.setdefault(SOURCE, context.source)
        items = self.store.all_items(thread.id)
        question = self._question(thread, source, items, self._memory(thread, source))
        order = context.make_order(question)
        context.stream_id = self._streams.start(order).stream_id
        created = time.time()
        turn = Turn(
            stream_id=context.stream_id,
            parent="",
            source=source,
            model=order.prompt.model,
            prompt="",  # that is an item of its own
            created=created,
            memory=question.memory,
        )
        if not self.store.claim_turn(thread.id, turn):
            # Another request was let through at the same moment, maybe by another worker.
            self._streams.erase(turn.stream_id)
            raise _busy()
        thread.metadata[MEMORY_OF] = context.stream_id
        return Telling(thread.id, context.stream_id, datetime.fromtimestamp(created, UTC))

    def _question(
        self, thread: ThreadMetadata, source: str, items: Sequence[ThreadItem], memory: str
    ) -> Question:
        last = items[-1] if items else None
        if isinstance(last, StructuredInputItem) and last.status != "pending" and source in self._registered:
            return Question(thread.id, source, None, [], answer_of(last), resumes=True, memory=memory)
        messages = history.within(
            history.messages_of(items), self._settings.max_messages, self._settings.max_prompt_chars
        )
        return Question(thread.id, source, _model_of(items), messages, memory=memory)

    def _memory(self, thread: ThreadMetadata, source: str) -> str:
        """Return the name under which a runnable remembers this thread, for its next turn.

        Its memory cannot be turned back. So a retry, after which the thread's last
        turn is not the last it remembers, begins a new one, and tells it all that
        was said; an agent's session takes no past, and then remembers nothing.
        """
        if source not in self._registered:
            return ""
        last = self.store.last_turn(thread.id)
        if last is not None and thread.metadata.get(MEMORY_OF) == last.stream_id:
            return last.memory
        if MEMORY_OF in thread.metadata and self._registered[source].kind == "agents":
            return ""
        return f"chatkit_{secrets.token_hex(12)}"

    @property
    def _registered(self) -> Mapping[str, Registered]:
        return self._streams.registered

    # Besides answers

    async def add_feedback(
        self, thread_id: str, item_ids: list[str], feedback: FeedbackKind, context: Visit
    ) -> None:
        if len(item_ids) > MAX_FEEDBACK_ITEMS:
            raise InvalidRequest(
                f"params.item_ids: at most {MAX_FEEDBACK_ITEMS}", code="too_long", param="params.item_ids"
            )
        for item_id in dict.fromkeys(item_ids):
            await self.store.load_item(thread_id, item_id, context)
        for item_id in item_ids:
            self.store.mark_feedback(thread_id, item_id, feedback)

    async def transcribe(self, audio_input: AudioInput, context: Visit) -> TranscriptionResult:
        raise InvalidRequest("there is no dictation here", code="no_dictation", param="type")

    async def action(
        self,
        thread: ThreadMetadata,
        action: Action[str, Any],
        sender: WidgetItem | None,
        context: Visit,
    ) -> AsyncIterator[ThreadStreamEvent]:
        raise CustomStreamError(NO_ACTIONS)
        yield  # what makes it a generator

    async def sync_action(
        self,
        thread: ThreadMetadata,
        action: Action[str, Any],
        sender: WidgetItem | None,
        context: Visit,
    ) -> SyncCustomActionResponse:
        raise InvalidRequest(NO_ACTIONS, code="no_actions", param="params.action")


class _NoAttachments(AttachmentStore[Visit]):
    """Refuses in words what the library would break at."""

    async def create_attachment(self, input: AttachmentCreateParams, context: Visit) -> Attachment:
        raise no_attachments()

    async def delete_attachment(self, attachment_id: str, context: Visit) -> None:
        raise no_attachments()


def _busy() -> InvalidRequest:
    return InvalidRequest(
        "the answer before this one is still being written",
        code="thread_busy",
        param="params.thread_id",
        status=409,
    )


def _model_of(items: Sequence[ThreadItem]) -> str | None:
    """Return the model that was chosen for the newest message, if one was."""
    asked = [item for item in items if isinstance(item, UserMessageItem)]
    return asked[-1].inference_options.model if asked else None


def _sentence(message: str) -> str:
    """Return one of our messages as people read it."""
    return message[:1].upper() + message[1:] + ("" if message.endswith((".", "?", "!")) else ".")
