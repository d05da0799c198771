"""What an exception of the Agents SDK means here, in our own words."""

import logging

from agents import (
    InputGuardrailTripwireTriggered,
    MaxTurnsExceeded,
    ModelBehaviorError,
    OutputGuardrailTripwireTriggered,
    ToolInputGuardrailTripwireTriggered,
    ToolOutputGuardrailTripwireTriggered,
)

from streaming.errors import GuardrailTripped, LimitExceeded, StreamingError, UpstreamBadResponse
from streaming.runnables import _failures
from streaming.runnables._whole_answers import FaultyAnswer

logger = logging.getLogger(__name__)


def failure_of(error: Exception) -> StreamingError:
    """Return the error that ends a run. Only names that the developer gave are repeated."""
    for cause in _causes(error):
        if isinstance(cause, FaultyAnswer):
            return cause.failure
    match error:
        case MaxTurnsExceeded():
            return LimitExceeded("the agent needs more turns than it may have", code="turns")
        case InputGuardrailTripwireTriggered() | OutputGuardrailTripwireTriggered():
            place = "input" if isinstance(error, InputGuardrailTripwireTriggered) else "output"
            name = error.guardrail_result.guardrail.get_name()
            return GuardrailTripped(f"the guardrail {name} refuses the {place}", code=place)
        case ToolInputGuardrailTripwireTriggered() | ToolOutputGuardrailTripwireTriggered():
            return GuardrailTripped(f"the guardrail {error.guardrail.get_name()} refuses a tool", code="tool")
        case ModelBehaviorError():
            # Its text may quote the model.
            logger.warning("an agent cannot use what its model said", extra={"why": type(error).__name__})
            return UpstreamBadResponse("the model answers with what the agent cannot use", code="behaviour")
    return _failures.failure_of(error)


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in found and len(found) < 10:
        found.append(cause)
        cause = cause.__cause__
    return found
