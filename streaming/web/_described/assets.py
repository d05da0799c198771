"""``/assets`` and ``/static``: the page's own files."""

from streaming.openapi import Answer, Operation, Parameter
from streaming.web._described import _parts as parts

FILE = Answer("The file.", {"*/*": {}}, {"Cache-Control": "How long it may be kept."})
NAME = Parameter("name", "path", "Its name, which may hold slashes.", parts.TEXT)
OPERATIONS = (
    Operation(
        "GET",
        "/assets/{asked}/{name}",
        "getAsset",
        "Page",
        "A file of the page, in one version",
        parameters=(Parameter("asked", "path", "The version.", parts.TEXT), NAME),
        answers={200: FILE},
        errors=(404,),
        access="public",
    ),
    Operation(
        "GET",
        "/static/{filename}",
        "getStaticFile",
        "Page",
        "A file of the page, as it is now",
        parameters=(Parameter("filename", "path", "Its name, which may hold slashes.", parts.TEXT),),
        answers={200: FILE},
        errors=(404,),
        access="public",
    ),
)
