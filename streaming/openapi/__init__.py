"""What is said of an address of this service: the words the API's description is written in.

An `Operation` names types, the same that read requests and are sent in answers;
`document` makes OpenAPI 3.1 of them. Nothing here knows Flask.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

JSON = dict[str, Any]

Shape = Any
"""A type msgspec has a schema for; or a JSON schema, as a dict."""

Access = Literal["public", "read", "run", "metrics", "admin"]
"""Who may: anybody, or a caller with this scope."""

Dialect = Literal["sluice", "openai"]
"""How errors are told."""


class Parameter(NamedTuple):
    name: str
    where: Literal["path", "query", "header"]
    about: str
    schema: JSON
    required: bool = False
    repeated: bool = False
    """The schema is of one value; it may be given several times."""


class Body(NamedTuple):
    shape: Shape
    examples: Mapping[str, Any] = {}
    """What to send, by what it shows. Each works as it stands, with the demo model."""
    media_type: str = "application/json"
    required: bool = True


class Events(NamedTuple):
    """An event stream; ``shape`` is that of the JSON in each event's ``data``."""

    shape: Shape
    example: str = ""


class Answer(NamedTuple):
    about: str
    content: Mapping[str, Shape | Events] = {}
    """What comes, by its media type."""
    headers: Mapping[str, str] = {}
    """What each says."""


class Operation(NamedTuple):
    method: Literal["GET", "POST", "PATCH", "DELETE"]
    path: str
    id: str
    """What a generated client calls it."""
    tag: str
    summary: str
    about: str = ""
    parameters: Sequence[Parameter] = ()
    body: Body | None = None
    answers: Mapping[int, Answer] = {}
    errors: Sequence[int] = ()
    """The statuses it may refuse with, besides those that any address of its `Access` has."""
    access: Access = "run"
    dialect: Dialect = "sluice"


class Tag(NamedTuple):
    name: str
    about: str


class Service(NamedTuple):
    """What is said of all of it."""

    title: str
    version: str
    about: str
    tags: Sequence[Tag]
    names: Mapping[Any, str]
    """What a type is called in the document, where its own name would say too little."""
    is_open: bool
    """No key is needed here."""
    session_cookie: str
