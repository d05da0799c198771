"""Sources of an answer, as annotations of its message."""

from chatkit.types import Annotation, EntitySource, URLSource

from streaming.events import Document

MAX_SNIPPET_CHARS = 500


def annotation_of(document: Document) -> Annotation:
    """Return a link where the document has an address, else a named thing without one."""
    title = document.title or document.id
    snippet = document.snippet[:MAX_SNIPPET_CHARS] or None
    if document.id.startswith(("https://", "http://")):
        return Annotation(source=URLSource(url=document.id, title=title, description=snippet))
    return Annotation(source=EntitySource(id=document.id, title=title, description=snippet))
