"""What the demo model can tell about an image: the facts in its URL and in its file header."""

import base64
import binascii
from typing import NamedTuple
from urllib.parse import unquote_to_bytes, urlsplit


class PixelSize(NamedTuple):
    width: int
    height: int


def describe_image(url: str) -> str:
    """Return one line about the image at ``url``; nothing is ever fetched.

    Raises ``ValueError`` for a URL that is neither readable ``data:`` nor http(s).

    >>> describe_image("https://example.com/cat.png")
    'a link to example.com, which the demo model does not fetch'
    """
    scheme = url[:5].lower()
    if scheme == "data:":
        return _describe_data(url)
    if scheme.startswith("http") and (host := urlsplit(url).hostname):
        return f"a link to {host}, which the demo model does not fetch"
    raise ValueError("an image URL must start with data:, http:// or https://")


def pixel_size(image: bytes) -> PixelSize | None:
    """Read width and height from the header of a PNG, GIF, WebP or JPEG file.

    Sources: PNG 11.2.2 "IHDR"; GIF89a 18 "Logical Screen Descriptor"; RFC 9649
    (WebP); ITU-T T.81 B.2.2 "Frame header syntax" (JPEG).
    """
    if image.startswith(b"\x89PNG\r\n\x1a\n") and len(image) >= 24:
        return PixelSize(_big(image[16:20]), _big(image[20:24]))
    if image.startswith((b"GIF87a", b"GIF89a")) and len(image) >= 10:
        return PixelSize(_little(image[6:8]), _little(image[8:10]))
    if image.startswith(b"RIFF") and image[8:12] == b"WEBP" and len(image) >= 30:
        return _webp_size(image)
    if image.startswith(b"\xff\xd8"):
        return _jpeg_size(image)
    return None


def _describe_data(url: str) -> str:
    header, comma, body = url[len("data:") :].partition(",")
    media_type, *parameters = header.split(";")
    if not comma:
        raise ValueError("a data: URL needs a comma before its content")
    if "base64" in parameters:
        try:
            image = base64.b64decode(unquote_to_bytes(body), validate=True)
        except binascii.Error as error:
            raise ValueError(f"the image is not valid base64: {error}") from error
    else:
        image = unquote_to_bytes(body)
    size = pixel_size(image)
    pixels = f", {size.width} by {size.height} pixels" if size else ""
    return f"{media_type or 'text/plain'}, {len(image):,} bytes{pixels}"


def _webp_size(image: bytes) -> PixelSize | None:
    chunk = image[12:16]
    if chunk == b"VP8X":
        return PixelSize(_little(image[24:27]) + 1, _little(image[27:30]) + 1)
    if chunk == b"VP8L":
        bits = _little(image[21:25])
        return PixelSize((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if chunk == b"VP8 ":
        return PixelSize(_little(image[26:28]) & 0x3FFF, _little(image[28:30]) & 0x3FFF)
    return None


def _jpeg_size(image: bytes) -> PixelSize | None:
    at = 2
    while at + 9 <= len(image) and image[at] == 0xFF:
        marker = image[at + 1]
        if marker == 0xFF:  # a fill byte before the marker
            at += 1
        # C4, C8 and CC share the range of the frame headers and are not one.
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return PixelSize(_big(image[at + 7 : at + 9]), _big(image[at + 5 : at + 7]))
        else:
            at += 2 + _big(image[at + 2 : at + 4])
    return None


def _big(digits: bytes) -> int:
    return int.from_bytes(digits, "big")


def _little(digits: bytes) -> int:
    return int.from_bytes(digits, "little")
