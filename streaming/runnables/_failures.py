"""What an exception out of a user's runnable means to a client, in our own words."""

import logging
import sys
from json import JSONDecodeError
from traceback import walk_tb

import httpx2
import openai

from streaming.errors import (
    RunnableFailed,
    StreamingError,
    UpstreamBadResponse,
    UpstreamTimeout,
    UpstreamUnreachable,
)
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
    if isinstance(error, JSONDecodeError) and _is_from_sdk(error):
        return UpstreamBadResponse("the model sent what is not JSON", code="json")
    httpx = sys.modules.get("httpx")
    if httpx is not None and isinstance(error, httpx.TimeoutException):
        return UpstreamTimeout("what the runnable asked was silent for too long", code="idle")
    if httpx is not None and isinstance(error, httpx.TransportError):
        return UpstreamUnreachable("what the runnable asked cannot be reached")
    logger.warning("a runnable raised an exception", exc_info=error)
    return RunnableFailed(f"the runnable raised {type(error).__name__}", code="raised")


def _is_from_sdk(error: Exception) -> bool:
    """Say whether it was the SDK's reading of an answer that failed, and not a parser of the user's."""
    modules = (frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__))
    return any(module.startswith("openai.") for module in modules)
