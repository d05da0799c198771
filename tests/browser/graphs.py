"""What a service of these tests serves besides the examples: an open question, a result too long."""

from typing import Any

from langchain_core.messages import AIMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import interrupt

from streaming.runnables.tools import ToolLoop


def greet(state: MessagesState) -> dict[str, Any]:
    """Ask for a name, and use it."""
    return {"messages": [AIMessage(f"Hello, {interrupt('What is your name?')}.")]}


greeting = (
    StateGraph(MessagesState)
    .add_node("greet", greet)
    .add_edge(START, "greet")
    .add_edge("greet", END)
    .compile()
)


def get_weather(city: str) -> str:
    """The weather in a city, now, at length."""
    return f"{city}: " + "sun, " * 1000


forecast = ToolLoop([get_weather], result_bytes=100)
