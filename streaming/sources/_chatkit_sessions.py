"""Ask OpenAI for a session of its hosted ChatKit: what a page needs to speak to a workflow there."""

import time

import httpx2
import msgspec
import openai

from streaming.errors import UpstreamBadResponse
from streaming.events import Status
from streaming.sources import Batches, HostedSession, Prompt, _upstream
from streaming.sources._attempts import Doing
from streaming.sources._routes import Route

MAX_SESSION_BYTES = 1024 * 1024


class SessionAttempt:
    """An `Attempt`: asked again like a run that has said nothing yet; a session nobody uses just expires."""

    said_something = False

    def __init__(self, workflow_id: str, user: str, began: float) -> None:
        self.session: HostedSession | None = None
        self._workflow_id = workflow_id
        self._user = user
        self._began = began

    def status(self, status: Doing, model: str = "") -> Status:
        return Status(status, int((time.monotonic() - self._began) * 1000), model)

    def events(self, route: Route, prompt: Prompt) -> Batches:
        sessions = route.client.beta.chatkit.sessions.with_streaming_response
        try:
            with sessions.create(user=self._user, workflow={"id": self._workflow_id}) as response:
                body = bytearray()
                for block in response.http_response.iter_raw():
                    body += block
                    if len(body) > MAX_SESSION_BYTES:
                        raise UpstreamBadResponse("OpenAI sent too long an answer", code="too_large")
        except (openai.OpenAIError, httpx2.HTTPError) as error:
            raise _upstream.failure_of(error) from None
        try:
            # By our own eyes: the SDK builds a session of whatever came.
            self.session = msgspec.json.decode(bytes(body), type=HostedSession)
        except (msgspec.DecodeError, RecursionError):
            raise UpstreamBadResponse("OpenAI sent what is not a session", code="json") from None
        if not self.session.client_secret:
            raise UpstreamBadResponse("OpenAI sent a session without a secret", code="json")
        yield from ()
