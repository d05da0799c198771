"""What the service registers when its LangChain source is measured."""

from streaming.models import chat_model

model = chat_model()
