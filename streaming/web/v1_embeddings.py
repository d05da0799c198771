"""``POST /v1/embeddings``: passed through to the upstream of the model. It is no run, and nothing is kept."""

from flask import Blueprint, Response, request

from streaming.errors import InvalidRequest
from streaming.settings import Settings
from streaming.streams import Streams
from streaming.web import _bodies, _rights, _v1
from streaming.web._responses import HEADERS, noticing


def create(streams: Streams, settings: Settings) -> Blueprint:
    blueprint = _v1.create_blueprint("embeddings")

    @blueprint.post("/embeddings")
    def embed() -> Response:
        _bodies.check_origin(request)
        body = _v1.check_fields(_bodies.read_json(request, settings))
        asked = body.get("model")
        if not isinstance(asked, str):
            said = "it is missing" if asked is None else "text"
            code = "required" if asked is None else "wrong_type"
            raise InvalidRequest(f"model: {said}", code=code, param="model")
        model = _bodies.model_of(asked, settings)
        streams.check_question(model)
        # As long as a model may take to begin an answer: the whole one comes at once here.
        with (
            streams.questions.asking(settings.first_token_timeout_seconds) as question,
            noticing(request.environ, question.leave, settings),
            _rights.watched(question.leave),
        ):
            answer = question.relay.embed(model, body)
        return Response(answer, content_type="application/json", headers=HEADERS)

    return blueprint
