"""What browsers are told to refuse, on every answer that does not say it itself.

Source: OWASP Secure Headers Project; Content Security Policy Level 3.
"""

from flask import Flask, Response, request

# Data is not a document: opened as one, or framed, it may do nothing.
DATA_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
# A worker's script brings the policy that the worker lives under.
SCRIPT_POLICY = "default-src 'none'; script-src 'self'; connect-src 'self'; frame-ancestors 'none'"

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}
# Said only over TLS, where a browser believes it; subdomains are others' to decide on.
HSTS = "max-age=31536000"


def register(app: Flask) -> None:
    app.after_request(_complete)


def _complete(response: Response) -> Response:
    headers = response.headers
    said = {name.lower() for name, _ in headers}
    for name, value in HEADERS.items():
        if name.lower() not in said:
            headers.add(name, value)
    if "content-security-policy" not in said:
        is_script = response.mimetype == "text/javascript"
        headers.add("Content-Security-Policy", SCRIPT_POLICY if is_script else DATA_POLICY)
    if request.is_secure and "strict-transport-security" not in said:
        headers.add("Strict-Transport-Security", HSTS)
    return response
