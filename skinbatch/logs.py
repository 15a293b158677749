"""Log what happens in a run as events with fields, to Python's logger `skinbatch`.

On request, the log is written as JSON lines.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

from skinbatch.redact import redacted

LOGGER = logging.getLogger("skinbatch")
# Otherwise Python prints warnings of a logger without handlers.
LOGGER.addHandler(logging.NullHandler())
_bound: ContextVar[dict[str, Any]] = ContextVar("skinbatch_log_fields", default={})  # noqa: B039 - never changed in place


def event(name: str, level: int = logging.INFO, **fields: Any) -> None:
    """Log that something happened. The record's attribute `fields` holds the fields."""
    if LOGGER.isEnabledFor(level):
        LOGGER.log(level, name, extra={"fields": _bound.get() | fields})


@contextmanager
def bound(**fields: Any) -> Iterator[None]:
    """Add these fields to every event that this thread logs within the context."""
    token = _bound.set(_bound.get() | fields)
    try:
        yield
    finally:
        _bound.reset(token)


class JsonLines(logging.Formatter):
    """Format each record as one JSON object a line.

    Events have `time` (UTC, to the millisecond), `level`, `event` and their own fields. Records of
    other libraries have the event `log`, with `logger` and `message`.
    """

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
        }
        if hasattr(record, "fields"):
            line |= {"event": record.getMessage()} | record.fields
        else:
            line |= {"event": "log", "logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return redacted(json.dumps(_redacted(line), default=str))


def _redacted(value: Any) -> Any:
    """Redact every text before it is encoded as JSON, which escapes quotation marks."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {name: _redacted(field) for name, field in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(field) for field in value]
    return value


class _JsonHandler(logging.StreamHandler[TextIO]):
    """Write JSON lines. The class of its own lets `writes_json` find it."""


def write_json(stream: TextIO) -> None:
    """Write this process's log to `stream` as JSON lines from now on.

    The log has all events, and warnings of other libraries. An earlier stream is replaced.
    """
    stop_json()
    handler = _JsonHandler(stream)
    handler.setFormatter(JsonLines())
    logging.getLogger().addHandler(handler)
    logging.captureWarnings(True)
    LOGGER.setLevel(logging.INFO)


def writes_json() -> bool:
    return any(isinstance(handler, _JsonHandler) for handler in logging.getLogger().handlers)


def stop_json() -> None:
    """Undo `write_json`."""
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, _JsonHandler)]:
        root.removeHandler(handler)
        logging.captureWarnings(False)
        LOGGER.setLevel(logging.NOTSET)
