"""Tools on a bare model, without a framework: functions with type hints, and that is all.

RUNNABLES="tools=examples.tool_loop:assistant" make run
"""

import datetime
import zoneinfo
from typing import Literal

from streaming.runnables.tools import ToolError, ToolLoop

CELSIUS = {"Prague": 21, "Oslo": 9, "Lisbon": 26}


def get_weather(city: str, unit: Literal["celsius", "fahrenheit"] = "celsius") -> dict[str, object]:
    """The weather in a city, now."""
    degrees = CELSIUS.get(city.title(), 18)
    return {"city": city, "degrees": degrees if unit == "celsius" else degrees * 9 // 5 + 32, "unit": unit}


def get_time(zone: str = "UTC") -> str:
    """The time in a zone such as Europe/Prague, now."""
    try:
        now = datetime.datetime.now(zoneinfo.ZoneInfo(zone))
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        # The model is told, and may try another one.
        raise ToolError(f"there is no time zone {zone}; they look like Europe/Prague") from None
    return f"{now:%H:%M}"


assistant = ToolLoop([get_weather, get_time], instructions="Answer in one sentence.")
