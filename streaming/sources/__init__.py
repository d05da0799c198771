"""Sources: what can produce the events of a stream.

To add one, add a file with ``create(settings) -> Source``; its name is the
value of ``source`` in a request.
"""

from collections.abc import Callable, Generator, Sequence
from typing import Any, Literal, Protocol

from msgspec import Struct

from streaming.events import Event, Token


class Prompt(Struct, frozen=True):
    """What to ask, already checked."""

    model: str
    messages: list[dict[str, Any]]
    """In the shape of OpenAI's chat completions, images included."""
    params: dict[str, Any] = {}
    """Temperature, tools and the like, by the names of that API."""
    input: Any = None
    """What a runnable is given, where the caller said it in its own shape; else it is made of messages."""
    thread: str = ""
    """The conversation it belongs to, for runnables that remember."""
    modes: Sequence[str] = ()
    """A graph's stream modes, or ``events``; empty for tokens, tool calls and results."""
    config: dict[str, Any] = {}
    """For a runnable: ``tags``, ``metadata``, ``configurable``, ``recursion_limit``."""
    response: dict[str, Any] | None = None
    """The body of a request to OpenAI's Responses, for that source: its ``input`` is a list of items,
    with those of earlier turns; without ``stream``, ``store`` and ``previous_response_id``."""


Batches = Generator[Sequence[Event], None, None]


class Flow(list[Event]):
    """A batch of nothing: here the source can give its next tokens from the event loop itself.

    Whoever does not know it goes on iterating, and gets them as batches.
    """

    def __init__(
        self, pour: Callable[[Callable[[Token], bool]], None], interrupt: Callable[[], None]
    ) -> None:
        super().__init__()
        self.pour = pour
        """Call its argument with each token as long as it takes them; it is called by the loop, and must
        not block. What it did not take comes with the next batch. Blocks; raises as iterating does."""
        self.interrupt = interrupt
        """Make ``pour`` return soon. Never blocks."""


class Source(Protocol):
    """Turns a prompt into events.

    ``events`` yields events that became known together as one batch, so that
    they are written together; the last of all is `Done`. It raises a
    `StreamingError` when that can't be reached. It runs in the greenlet that
    iterates it, waits only inside ``scope.current().waiting()``, and lets go
    of the upstream when it is closed.
    """

    def events(self, prompt: Prompt) -> Batches: ...


class Model(Struct, frozen=True):
    """What a request may name, as OpenAI's API lists it."""

    id: str
    created: int = 0
    """Seconds since 1970; 0 where nobody said."""
    owned_by: str = "sluice"
    object: Literal["model"] = "model"


class HostedSession(Struct, frozen=True):
    """A session of OpenAI's hosted ChatKit."""

    id: str
    client_secret: str
    """What a page shows for it; good for this session only."""
    expires_at: int
    """Seconds since 1970."""


class Relay(Protocol):
    """Asks upstreams what is no run: one question, one whole answer, nothing in the log.

    It waits only inside ``scope.current().waiting()``, and raises an `UpstreamFailure`
    for what it does not get.
    """

    def models(self) -> list[Model]:
        """Return what the upstream of the default model says that it has."""
        ...

    def embed(self, model: str, body: dict[str, Any]) -> bytes:
        """Return the answer to a request for embeddings: an object in JSON, as the upstream sent it."""
        ...

    def chatkit_session(self, workflow_id: str, user: str) -> HostedSession:
        """Return a new session for a workflow, at the upstream of the default model."""
        ...
