"""What an exception out of a user's runnable means to a client, in our own words."""

import logging
import sys

import httpx2
import openai

from streaming.errors import RunnableFailed, StreamingError, UpstreamTimeout, UpstreamUnreachable
from streaming.sources import _upstream

logger = logging.getLogger(__name__)


def failure_of(error: Exception) -> StreamingError:
    """Return the error that a run ends with when its runnable raises ``error``.

    Faults of an upstream are told as those of the chat source are. Anything else
    is logged, and told by its class alone: its text may quote a prompt or a key.
    """
    if isinstance(error, StreamingError):
        return error
    if isinstance(error, openai.OpenAIError | httpx2.HTTPError):
        return _upstream.failure_of(error)
    httpx = sys.modules.get("httpx")
    if httpx is not None and isinstance(error, httpx.TimeoutException):
        return UpstreamTimeout("what the runnable asked was silent for too long", code="idle")
    if httpx is not None and isinstance(error, httpx.TransportError):
        return UpstreamUnreachable("what the runnable asked cannot be reached")
    logger.warning("a runnable raised an exception", exc_info=error)
    return RunnableFailed(f"the runnable raised {type(error).__name__}", code="raised")
