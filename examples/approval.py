"""A graph that asks a person before it does something.

RUNNABLES="approval=examples.approval:graph" make run

The first request, in a thread, ends at the question; the answer is a second one:

    curl localhost:8000/streams --json '{"source": "approval", "thread": "t1", "prompt": "Invite Ana"}'
    curl localhost:8000/streams --json '{"source": "approval", "thread": "t1", "input": {"resume": "yes"}}'
"""

from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, interrupt

from streaming.models import chat_model

model = chat_model()


def write(state: MessagesState) -> dict[str, object]:
    """Draft the letter that was asked for."""
    return {"messages": [model.invoke(state["messages"])]}


def ask(state: MessagesState) -> Command[str]:
    """Wait for a person: yes sends the letter, no drops it, anything else is what to change."""
    draft = state["messages"][-1].text
    answer = interrupt({"question": "Send this letter?", "draft": draft, "answers": ["yes", "no"]})
    if answer == "yes":
        return Command(goto="send")
    if answer == "no":
        return Command(goto=END, update={"messages": [AIMessage("Nothing was sent.")]})
    return Command(goto="write", update={"messages": [HumanMessage(str(answer))]})


def send(state: MessagesState) -> dict[str, object]:
    """Here the letter would go out. What comes before an interrupt runs again; this does not."""
    return {"messages": [AIMessage("The letter was sent. ✉️")]}


graph = (
    StateGraph(MessagesState)
    .add_node("write", write)
    .add_node("ask", ask, destinations=("send", "write", END))
    .add_node("send", send)
    .add_edge(START, "write")
    .add_edge("write", "ask")
    .add_edge("send", END)
    .compile()
)
