"""The obvious Flask relay, which the service is compared with: the SDK's chunks and ``json.dumps``.

Written as tutorials write it, and as it is found in applications. It keeps nothing,
limits nothing and notices nothing; so the comparison is in its favour.
"""

import json
import os

from flask import Flask, Response, request, stream_with_context
from openai import OpenAI

client = OpenAI(base_url=os.environ["OPENAI_BASE_URL"], api_key="sk-bench")
app = Flask(__name__)


@app.post("/chat")
def chat():
    message = request.get_json()["message"]

    def generate():
        stream = client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": message}], stream=True
        )
        for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                yield f"data: {json.dumps({'content': chunk.choices[0].delta.content, 'done': False})}\n\n"
        yield f"data: {json.dumps({'content': '', 'done': True})}\n\n"

    return Response(stream_with_context(generate()), mimetype="text/event-stream")
