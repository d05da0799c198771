"""One line for each log record: time, level, a constant phrase, then its fields."""

import logging
import sys
import time

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LineFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = f"{moment}.{int(record.msecs):03d}Z {record.levelname} {record.getMessage()}"
        fields = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        for name, value in fields.items():
            line += f" {name}={_quoted(value)}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _quoted(value: object) -> str:
    text = str(value)
    # One record stays one line, whatever a field holds.
    return text if text.isprintable() and " " not in text else repr(text)


def configure(level: str) -> None:
    """Send this service's records to stderr. Other libraries' only from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("streaming").setLevel(level)
