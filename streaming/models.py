"""For a user's own chains, graphs and agents: the models of this service.

.. code-block:: python

    from streaming.models import chat_model

    chain = prompt | chat_model()

They ask the upstreams of the settings, or the demo model where there is none.
"""

from streaming.runnables._models import chat_model, embedding_model

__all__ = ["chat_model", "embedding_model"]
