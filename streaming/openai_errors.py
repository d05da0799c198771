"""Errors as clients of OpenAI's API read them.

Source: OpenAI API reference, "Error codes"; the SDKs retry 408, 409, 429 and
5xx unless the header ``x-should-retry`` says otherwise.
"""

from typing import Any

from streaming.errors import ErrorInfo, Told

CANCELLED = ErrorInfo("the run was cancelled", "cancelled", "cancelled", partial=True)
_RETRIED = frozenset({408, 409, 429})


def error_object(info: ErrorInfo) -> dict[str, Any]:
    """Return what stands under ``error``; ``code`` is our ``type`` where the fault is not the caller's."""
    status = Told(info).status
    if info.type in ("upstream_quota", "budget_spent"):
        kind, code = "insufficient_quota", "insufficient_quota"
    elif status == 429:
        kind, code = "rate_limit_error", "rate_limit_exceeded"
    elif info.type == "not_authenticated":
        kind, code = "invalid_request_error", "invalid_api_key"
    elif status < 500:
        kind, code = "invalid_request_error", info.code
    else:
        kind, code = "server_error", info.type
    return {
        "message": info.message,
        "type": kind,
        "param": info.param,
        "code": code,
        "retryable": info.retryable,
        "request_id": info.request_id,
    }


def should_retry(status: int, info: ErrorInfo) -> str | None:
    """Return the value of ``x-should-retry``; ``None`` where no SDK would."""
    if status not in _RETRIED and status < 500:
        return None
    return "true" if info.retryable else "false"
