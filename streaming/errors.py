"""Every error this service raises on purpose.

Before the first byte an error is an HTTP status, after it the stream's last
event; both carry the same object (`ErrorInfo`). The class says what kind it is
(`type`, `status`, `retryable`); `code` narrows it; the message is always our
own words: an upstream's text may quote a key.
"""

from typing import ClassVar

from msgspec import Struct


class ErrorInfo(Struct, frozen=True):
    """The error object of the wire."""

    message: str
    type: str
    code: str
    param: str | None = None
    retryable: bool = False
    partial: bool = False
    request_id: str | None = None


class StreamingError(Exception):
    """Base of every deliberate error."""

    type: ClassVar[str] = "internal_error"
    status: int = 500
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        param: str | None = None,
        status: int = 0,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code or self.type
        self.param = param
        self.status = status or type(self).status
        self.retry_after_seconds = retry_after_seconds

    def info(self, *, partial: bool = False, request_id: str | None = None) -> ErrorInfo:
        """Return what a client is told; ``partial`` means some text came before."""
        return ErrorInfo(str(self), self.type, self.code, self.param, self.retryable, partial, request_id)


# The caller's request


class InvalidRequest(StreamingError):
    type = "invalid_request"
    status = 400


class NotAuthenticated(StreamingError):
    """Nobody who is known here asks: ``no_key``, ``invalid_key``, ``key_expired`` or ``key_revoked``.

    And ``session_ended``, while something is open.
    """

    type = "not_authenticated"
    status = 401


class PermissionDenied(StreamingError):
    """Who asks is known, and may not do that; the message names the scope that is missing."""

    type = "permission_denied"
    status = 403

    def __init__(self, message: str, *, code: str = "forbidden", param: str | None = None) -> None:
        super().__init__(message, code=code, param=param)


class RateLimited(StreamingError):
    """This principal has used up what it may use for now."""

    type = "rate_limited"
    status = 429
    retryable = True


class BadCursor(StreamingError):
    type = "bad_cursor"
    status = 400


class NotFound(StreamingError):
    type = "not_found"
    status = 404


class IdempotencyMismatch(StreamingError):
    """The key was used before, for another body."""

    type = "idempotency_mismatch"
    status = 422


class BudgetSpent(StreamingError):
    """The caller has used up what it may in a day: asking again before the next one is of no use."""

    type = "budget_spent"
    status = 429


class RequestTimeout(StreamingError):
    """The client sends its request too slowly, or not at all."""

    type = "request_timeout"
    status = 408


# A stream that cannot be continued from here


class CursorLost(StreamingError):
    """The log does not hold the event the reader last saw: start again from the first."""

    type = "cursor_lost"
    status = 410

    def __init__(self, message: str, last_id: str) -> None:
        super().__init__(message)
        self.last_id = last_id


class StreamLost(StreamingError):
    """The stream was made in another store, which is gone or elsewhere."""

    type = "stream_lost"
    status = 410


class StreamExpired(StreamingError):
    type = "stream_expired"
    status = 410


class Cancelled(StreamingError):
    """Somebody cancelled the run whose answer this caller waited for.

    Not 409: several clients of OpenAI's API repeat that whatever they are told,
    and would run, and pay for, what was cancelled.
    """

    type = "cancelled"
    status = 499


# What users bring


class RunnableFailed(StreamingError):
    """What a user registered raised something; only its class is told."""

    type = "runnable_failed"
    status = 502


class GuardrailTripped(StreamingError):
    """A check of an agent refuses what goes in or comes out: ``input``, ``output`` or ``tool``."""

    type = "guardrail"
    status = 422


# This service


class Overloaded(StreamingError):
    type = "overloaded"
    status = 503
    retryable = True


class StoreUnavailable(StreamingError):
    type = "store_unavailable"
    status = 503
    retryable = True


class StoreFull(StreamingError):
    type = "store_full"
    status = 503
    retryable = True


class NotConfigured(StreamingError):
    """This service could do that, but a setting for it is missing; the message names it."""

    type = "not_configured"
    status = 501


class LimitExceeded(StreamingError):
    """The stream grew past ``bytes``, ``events`` or ``duration``."""

    type = "limit_exceeded"
    status = 502


class Interrupted(StreamingError):
    """The producer went away: ``worker_lost``, ``lease_expired`` or ``shutdown``."""

    type = "interrupted"
    status = 503
    retryable = True


class Fenced(StreamingError):
    """Somebody else has the right to write this stream, or it has ended: stop producing."""

    type = "fenced"
    status = 409


class SettingsError(StreamingError):
    """A setting cannot be used; the message names it and says what can."""

    type = "settings"


# The upstream


class UpstreamFailure(StreamingError):
    """Base of every fault of the upstream; ``may_retry`` while nothing was shown."""

    type = "upstream_error"
    status = 502
    retryable = True

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        status: int = 0,
        may_retry: bool = False,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message, code=code, status=status, retry_after_seconds=retry_after_seconds)
        self.may_retry = may_retry


class UpstreamUnreachable(UpstreamFailure):
    type = "upstream_unreachable"


class UpstreamTimeout(UpstreamFailure):
    """``first_token`` or ``idle``."""

    type = "upstream_timeout"
    status = 504


class UpstreamAuth(UpstreamFailure):
    """The upstream refused our key. Never 401 to the caller: it is not the caller's key."""

    type = "upstream_auth"
    retryable = False


class UpstreamRejected(UpstreamFailure):
    type = "upstream_rejected"
    status = 400
    retryable = False


class UpstreamRateLimited(UpstreamFailure):
    type = "upstream_rate_limited"
    status = 429


class UpstreamQuota(UpstreamFailure):
    type = "upstream_quota"
    status = 429
    retryable = False


class UpstreamOverloaded(UpstreamFailure):
    type = "upstream_overloaded"
    status = 503


class UpstreamBadResponse(UpstreamFailure):
    """``redirect``, ``content_type``, ``encoding``, ``json`` or ``too_large``."""

    type = "upstream_bad_response"
    retryable = False


class UpstreamTruncated(UpstreamFailure):
    """The answer stopped without saying that it had ended."""

    type = "upstream_truncated"


class Told(StreamingError):
    """An error that ended a run, told again to a caller who still waits for a status."""

    def __init__(self, info: ErrorInfo, status: int = 0, retry_after_seconds: float | None = None) -> None:
        """``status`` is that of the error's type where it is not given."""
        kind = _TYPES.get(info.type, StreamingError)
        super().__init__(
            info.message,
            code=info.code,
            param=info.param,
            status=status or kind.status,
            retry_after_seconds=retry_after_seconds,
        )
        self._info = info

    def info(self, *, partial: bool = False, request_id: str | None = None) -> ErrorInfo:
        return self._info


def kinds(base: type[StreamingError] = StreamingError) -> list[type[StreamingError]]:
    """Return every class of error, the bases first."""
    return [base, *(each for child in base.__subclasses__() for each in kinds(child))]


_TYPES = {kind.type: kind for kind in kinds()}
