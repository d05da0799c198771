"""A graph that asks the campaign's upstream, as a user's would: what is harmed is not only chats."""

from langgraph.graph import END, START, MessagesState, StateGraph

from streaming.models import chat_model


def answer(state: MessagesState) -> dict[str, list[object]]:
    return {"messages": [chat_model().invoke(state["messages"])]}


graph = (
    StateGraph(MessagesState)
    .add_node("answer", answer)
    .add_edge(START, "answer")
    .add_edge("answer", END)
    .compile()
)
