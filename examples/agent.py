"""A LangGraph agent with two tools.

RUNNABLES="agent=examples.agent:agent" make run

Compiled without a checkpointer: in a thread it remembers by the service's own.
"""

import datetime
import zoneinfo

from langchain.agents import create_agent
from langchain_core.tools import ToolException, tool

from streaming.models import chat_model

CELSIUS = {"Prague": 21, "Oslo": 9, "Lisbon": 26}


@tool
def get_weather(city: str) -> dict[str, object]:
    """The weather in a city, now."""
    return {"city": city, "celsius": CELSIUS.get(city.title(), 18), "sky": "clear"}


@tool
def get_time(zone: str = "UTC") -> str:
    """The time in a zone such as Europe/Prague, now."""
    try:
        now = datetime.datetime.now(zoneinfo.ZoneInfo(zone))
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        # The model is told, and may try another one.
        raise ToolException(f"there is no time zone {zone}; they look like Europe/Prague") from None
    return f"{now:%H:%M}"


get_time.handle_tool_error = True

agent = create_agent(chat_model(), [get_weather, get_time], system_prompt="Answer in one sentence.")
