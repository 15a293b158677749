"""What happens in a run as events with fields, on Python's own logger `skinbatch`; as JSON lines where that is asked for."""

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
LOGGER.addHandler(logging.NullHandler())  # Python would print warnings of a logger that nobody listens to
_bound: ContextVar[dict[str, Any]] = ContextVar("skinbatch_log_fields", default={})  # noqa: B039 - never changed in place


def event(name: str, level: int = logging.INFO, **fields: Any) -> None:
    """Log that something happened. Listeners find the fields as the attribute `fields` of the log record."""
    if LOGGER.isEnabledFor(level):
        LOGGER.log(level, name, extra={"fields": _bound.get() | fields})


@contextmanager
def bound(**fields: Any) -> Iterator[None]:
    """Within it, on this thread, every event has these fields too."""
    token = _bound.set(_bound.get() | fields)
    try:
        yield
    finally:
        _bound.reset(token)


class JsonLines(logging.Formatter):
    """One object a line: `time` (UTC, to the millisecond), `level`, `event`, then the event's fields. What other libraries
    log has the event `log`, with `logger` and `message`."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"time": at.replace("+00:00", "Z"), "level": record.levelname.lower()}
        if hasattr(record, "fields"):
            line |= {"event": record.getMessage()} | record.fields
        else:
            line |= {"event": "log", "logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return redacted(json.dumps(_redacted(line), default=str))


def _redacted(value: Any) -> Any:
    """Before it is JSON, where a quotation mark is no longer what it was."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {name: _redacted(field) for name, field in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(field) for field in value]
    return value


class _JsonHandler(logging.StreamHandler[TextIO]):
    """Known by its class, so that there is only one."""


def write_json(stream: TextIO) -> None:
    """From now on this process's log goes to `stream` as JSON lines: all events, and other libraries' warnings."""
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
