"""A chain: a prompt, a model, a parser.

RUNNABLES="explain=examples.chain:chain" make run

    curl -N "localhost:8000/stream?source=explain&prompt=cursors"

Its one variable is filled with what the user said last; by name it is
``"input": {"topic": "cursors"}``.
"""

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from streaming.models import chat_model

prompt = ChatPromptTemplate.from_messages(
    [
        ("system", "You explain things to colleagues: in short sentences, with one example."),
        ("human", "{topic}"),
    ]
)

chain = prompt | chat_model() | StrOutputParser()
