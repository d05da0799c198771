"""The application for a WSGI server: ``gunicorn wsgi:app``."""

import os
import sys

from app import create_app
from streaming import logs
from streaming.errors import SettingsError
from streaming.settings import Settings

# gunicorn's code for an application that cannot be loaded: it stops, rather than try again.
CANNOT_LOAD = 4

try:
    settings = Settings.from_environ(os.environ)
    logs.configure(settings.log_level, settings.log_format)
    logs.note_greenlet_errors()
    app = create_app(settings)
except SettingsError as error:
    print(f"Sluice cannot start. {error}", file=sys.stderr)
    sys.exit(CANNOT_LOAD)
