"""The obvious Flask relay with LangChain: ``ChatOpenAI.stream`` and ``json.dumps``. See naive_flask.py."""

import json
import os

from flask import Flask, Response, request, stream_with_context
from langchain_openai import ChatOpenAI

model = ChatOpenAI(
    model="gpt-4o-mini", base_url=os.environ["OPENAI_BASE_URL"], api_key="sk-bench", streaming=True
)
app = Flask(__name__)


@app.post("/chat")
def chat():
    message = request.get_json()["message"]

    def generate():
        for chunk in model.stream(message):
            if chunk.content:
                yield f"data: {json.dumps({'content': chunk.content, 'done': False})}\n\n"
        yield f"data: {json.dumps({'content': '', 'done': True})}\n\n"

    return Response(stream_with_context(generate()), mimetype="text/event-stream")
