"""What an upstream's Responses say when they fail, in our words.

Source: OpenAI API reference, "error" and "response.failed" of the streaming
events of Responses, and the codes of a response's ``error``.
"""

from typing import Any

from streaming.errors import UpstreamBadResponse, UpstreamFailure, UpstreamRejected
from streaming.sources import _upstream

# What is wrong with the request, beyond what chat completions can say.
REJECTION_CODES = frozenset(
    "data_residency_mismatch bio_policy misalignment_policy_violation invalid_image_format"
    " invalid_base64_image image_too_large image_too_small image_content_policy_violation"
    " invalid_image_mode image_file_too_large unsupported_image_media_type empty_image_file"
    " failed_to_download_image image_file_not_found previous_response_not_found".split()
)


def failure_of_event(said: dict[str, Any]) -> UpstreamFailure:
    """Return the failure an event tells.

    An ``error`` event has its code beside its type, as documented, or in an
    object ``error``, as OpenAI's servers send it; a response that failed holds
    that object itself.
    """
    response = said.get("response")
    error = response.get("error") if isinstance(response, dict) else said.get("error")
    if isinstance(error, dict):
        return failure_of_error(error)
    return failure_of_error({name: said.get(name) for name in ("code", "message")})


def failure_of_error(error: object) -> UpstreamFailure:
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, str) and code in REJECTION_CODES:
        return UpstreamRejected(f"the model's server rejects this request ({code})", code=code, status=400)
    return _upstream.failure_of_error_object(error)


def no_response() -> UpstreamBadResponse:
    return UpstreamBadResponse("the model sent what is not a response", code="json")
