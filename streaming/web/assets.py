"""``/assets/<version>/…``: the page's own files, kept by browsers for as long as they like.

The version is in the path, not in a query: a module's relative imports, and a
worker's, then lead to files of the same version. A page never runs with files
from before and after a deploy; one that is asked for another version's file
answers 404, and the page still works as forms do.
"""

import functools
import gzip
import hashlib
import mimetypes
import posixpath
import re
from pathlib import Path

from flask import Blueprint, Response, request

from streaming.errors import NotFound
from streaming.settings import Settings
from streaming.streams import Streams

STATIC = Path(__file__).parents[2] / "static"
FOR_EVER = "public, max-age=31536000, immutable"
SMALL_BYTES = 1000
_IMPORT = re.compile(r'^(?:import|export)\b[^"]*?from "(\.[^"]+)"', re.MULTILINE)
TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}


def create(streams: Streams, settings: Settings) -> Blueprint:
    blueprint = Blueprint("assets", __name__)
    files = {path.relative_to(STATIC).as_posix(): path for path in STATIC.rglob("*") if path.is_file()}
    version = _version(files)

    @functools.cache
    def squeezed(name: str) -> bytes:
        return gzip.compress(files[name].read_bytes(), 9, mtime=0)

    def asset(name: str) -> str:
        """Return the address of one of the page's files. Raises ``KeyError`` for one there is not."""
        return f"/assets/{version}/{files[name].relative_to(STATIC).as_posix()}"

    @functools.cache
    def modules(name: str) -> list[str]:
        """Return all that a module imports, directly or not, so that a page can ask for it at once."""
        found: list[str] = []
        waiting = [name]
        while waiting:
            path = waiting.pop()
            for imported in _IMPORT.findall(files[path].read_text()):
                target = posixpath.normpath(posixpath.join(posixpath.dirname(path), imported))
                if target in files and target not in found:
                    found.append(target)
                    waiting.append(target)
        return sorted(found)

    @blueprint.get("/assets/<asked>/<path:name>")
    def serve(asked: str, name: str) -> Response:
        if asked != version or name not in files:
            raise NotFound("there is no such file in this version")
        path = files[name]
        kind = TYPES.get(path.suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
        headers = {"Cache-Control": FOR_EVER, "X-Content-Type-Options": "nosniff", "Vary": "Accept-Encoding"}
        if path.stat().st_size > SMALL_BYTES and request.accept_encodings["gzip"]:
            headers["Content-Encoding"] = "gzip"
            return Response(squeezed(name), headers=headers, content_type=kind)
        return Response(path.read_bytes(), headers=headers, content_type=kind)

    blueprint.add_app_template_global(asset, "asset")
    blueprint.add_app_template_global(modules, "modules_of")
    return blueprint


def _version(files: dict[str, Path]) -> str:
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        content = path.read_bytes()
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:12]
