"""Log records as lines of JSON on standard error."""

from __future__ import annotations

import json
import logging
import sys
import threading
from datetime import UTC, datetime

import orjson

__all__ = ["JsonLines", "set_up"]

_LOG = logging.getLogger(__name__)


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):
            line |= fields
        if (request := getattr(record, "request_id", None)) is not None:
            line["request_id"] = request
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(line, default=str).decode()
        except TypeError:  # a name that is no Unicode text, as a path of the command line can be
            return json.dumps(line, default=str)


def set_up(level: str) -> None:
    """Send the records of this package and of uvicorn to standard error, as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("bertport").setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()]))
    logging.getLogger("uvicorn.access").disabled = True
    threading.excepthook = _thread_ended


def _thread_ended(ended: threading.ExceptHookArgs) -> None:
    """Log the death of a thread that has no owner to do so; Python would print it as plain text."""
    error = ended.exc_value or ended.exc_type()
    _LOG.critical("the thread %s ended", ended.thread.name if ended.thread else "unknown", exc_info=error)
