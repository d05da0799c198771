"""What the OpenAI-compatible endpoints share: their address, their errors, what they refuse."""

from typing import Any

from flask import Blueprint, Response, after_this_request

from streaming.errors import InvalidRequest, NotFound, StreamingError
from streaming.limiter import Rate
from streaming.openai_errors import error_object, should_retry
from streaming.streams import Started
from streaming.web import _errors

REFUSED = frozenset(
    "api_key api_base api_version azure_endpoint base_url custom_llm_provider default_headers extra_body"
    " extra_headers extra_query headers organization project proxy".split()
)
"""Where a request goes, and in whose name, is not for its sender to say."""


def create_blueprint(name: str) -> Blueprint:
    """Return a blueprint below ``/v1`` whose errors have OpenAI's shape."""
    blueprint = Blueprint(f"v1_{name}", __name__, url_prefix="/v1")
    blueprint.register_error_handler(StreamingError, _refuse)
    _errors.DIALECTS["/v1/"] = _refuse
    return blueprint


def check_fields(body: Any) -> dict[str, Any]:
    """Return the body; fields nobody here knows are the upstream's to judge. Raises `InvalidRequest`."""
    if not isinstance(body, dict):
        raise InvalidRequest("the body: a JSON object", code="wrong_type")
    for name in REFUSED & body.keys():
        raise InvalidRequest(f"{name}: may not be chosen by a request", code="unknown_field", param=name)
    return body


def announce(started: Started, rate: Rate | None = None) -> None:
    """Say on this request's answer, be it an error, where its run can be followed in every format.

    And with a ``rate``, how many requests its sender has left.
    """
    headers = {"Stream-Id": started.stream_id, "Content-Location": f"/streams/{started.stream_id}"}
    if started.replayed:
        headers["Idempotent-Replayed"] = "true"
    if rate is not None:
        headers |= {
            "x-ratelimit-limit-requests": str(rate.limit),
            "x-ratelimit-remaining-requests": str(rate.remaining),
            "x-ratelimit-reset-requests": f"{rate.reset_seconds:.3g}s",
        }

    @after_this_request
    def add(response: Response) -> Response:
        response.headers.update(headers)
        return response


def _refuse(error: StreamingError) -> Response:
    if error.code == "unknown_model":
        error = NotFound(str(error), code="model_not_found", param="model")
    response = _errors.refuse(error)
    info = error.info(request_id=_errors.request_id())
    response.set_data(_errors.json_response({"error": error_object(info)}).get_data())
    if retry := should_retry(error.status, info):
        response.headers["x-should-retry"] = retry
    return response
