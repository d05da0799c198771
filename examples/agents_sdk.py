"""An agent of OpenAI's Agents SDK: it has a tool, and hands over to another agent.

RUNNABLES="support=examples.agents_sdk:support" make run
"""

from agents import Agent, function_tool

ORDERS = {"1001": "on its way, here tomorrow", "1002": "delivered on Monday"}


@function_tool
def find_order(number: str) -> str:
    """Where an order is."""
    return ORDERS.get(number, "there is no order with this number")


refunds = Agent(
    name="Refunds",
    handoff_description="Gives money back.",
    instructions="Ask for the reason, then promise the money within a week.",
)

support = Agent(
    name="Support",
    instructions="You answer for a shop. Look orders up; hand over to Refunds whoever wants money back.",
    tools=[find_order],
    handoffs=[refunds],
)
