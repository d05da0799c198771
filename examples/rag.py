"""Answers from documents, with the documents they rest on.

RUNNABLES="docs=examples.rag:chain" make run

    curl -N "localhost:8000/stream?source=docs&prompt=How+do+I+resume+a+stream"

What the retriever finds is told before the answer, as ``sources``. The vectors
are kept in memory: put a vector store of your own in the place of `Shelf`.
"""

import functools
import math

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnablePassthrough

from streaming.models import chat_model, embedding_model

TEXTS = {
    "Resuming": "To resume a stream after a lost connection, send the id of the last event you have seen, its"
    " cursor, in Last-Event-ID or ?after=. You are told what came after it: nothing is lost or comes twice.",
    "Cancelling": "To stop or cancel a run, POST to /streams/<id>/cancel. The connection to the model closes"
    " within a second, so nobody pays for words that nobody reads; the text so far stays, and can be read.",
    "Formats": "One run, many dialects: native tells every event as JSON, simple is for a page of six lines,"
    " text is the text itself, ndjson is for pipes. Two readers of one run may use two formats.",
    "Stores": "Runs are written to a durable log: SQLite serves all workers of one machine, Redis several"
    " machines, memory one worker that may forget.",
    "Runnables": "Chains of LangChain, graphs of LangGraph and agents are registered in RUNNABLES. Each is"
    " a source, streamed and durable like the chat.",
    "OpenAI": "Programs for OpenAI's API work unchanged: set their base URL to /v1 of this service, choose"
    " a runnable by its name as the model.",
}


class Shelf(BaseRetriever):
    """The texts, by how near their vectors are to that of a question."""

    best: int = 2

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        asked = _embeddings().embed_query(query)
        near = {title: _nearness(asked, vector) for title, vector in _vectors().items()}
        titles = sorted(near, key=lambda title: -near[title])[: self.best]
        return [
            Document(
                TEXTS[title], id=title.lower(), metadata={"title": title, "score": round(near[title], 3)}
            )
            for title in titles
        ]


_embeddings = functools.cache(embedding_model)


@functools.cache
def _vectors() -> dict[str, list[float]]:
    """At the first question, not when the service starts: the model may be away then."""
    texts = [f"{title}. {text}" for title, text in TEXTS.items()]
    return dict(zip(TEXTS, _embeddings().embed_documents(texts), strict=True))


def _nearness(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b) or 1.0)


def _as_text(documents: list[Document]) -> str:
    return "\n\n".join(f"{found.metadata['title']}: {found.page_content}" for found in documents)


prompt = ChatPromptTemplate.from_messages(
    [
        ("system", "Answer from these texts only, and say so if they do not tell.\n\n{context}"),
        ("human", "{question}"),
    ]
)

chain = (
    {"context": Shelf() | _as_text, "question": RunnablePassthrough()}
    | prompt
    | chat_model()
    | StrOutputParser()
)
