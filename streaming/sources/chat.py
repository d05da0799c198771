"""OpenAI chat completions, from any server that speaks them."""

from streaming.settings import Settings
from streaming.sources import Batches, Prompt, Source, _attempts
from streaming.sources._chat_dialect import ChatAttempt
from streaming.sources._routes import Routes, routes_of


class ChatSource:
    """See `Source`."""

    def __init__(self, routes: Routes, settings: Settings) -> None:
        self._routes = routes
        self._settings = settings

    def events(self, prompt: Prompt) -> Batches:
        routes = self._routes.of(prompt.model)
        return _attempts.answer(
            routes, prompt, self._settings, lambda began: ChatAttempt(self._settings, began)
        )


def create(settings: Settings) -> Source:
    routes = routes_of(settings)
    # Made now: the first run should not wait for it, nor the loop meanwhile.
    _ = routes.of(settings.default_model)[0].chat
    return ChatSource(routes, settings)
