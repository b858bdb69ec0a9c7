"""Lines of the log: time in UTC, level, request and key they belong to; never a key's secret.

One format for the service, its jobs and the server below it: text, or one JSON object a line.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final, Literal

from pythonjsonlogger.json import JsonFormatter

#: The state of the request that is being answered here: its id, and that of its key.
REQUEST_STATE: Final[ContextVar[Mapping[str, Any] | None]] = ContextVar(
    "request_state", default=None
)
REQUEST_ID: Final = "request_id"
KEY_ID: Final = "key_id"
#: What a line about a request has besides, in `extra` of the call.
REQUEST_FIELDS: Final = ("client", "method", "path", "status", "ms")
#: Half of a key, or one with a letter wrong, still is a secret.
_KEY = re.compile(r"(dsk_[0-9a-f]{1,12})(?:_[0-9a-z]*|[0-9a-f]{4,})", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_MILLISECOND: Final = 1000


def redacted(text: str) -> str:
    return _KEY.sub(r"\1_…", text)


def holds_key(text: str) -> bool:
    return _KEY.search(text) is not None


def one_line(text: str) -> str:
    """Control characters escaped: a client must not write lines of its own into the log."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def _time(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.created % 1 * _MILLISECOND):03d}Z"


def _of_request(record: logging.LogRecord) -> dict[str, Any]:
    state = REQUEST_STATE.get() or {}
    found = {name: state.get(name) for name in (REQUEST_ID, KEY_ID)}
    found |= {name: getattr(record, name, None) for name in REQUEST_FIELDS}
    return {name: value for name, value in found.items() if value is not None}


class TextLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        about = _of_request(record)
        parts = [_time(record), record.levelname, record.name]
        parts += [f"{name}={about[name]}" for name in (REQUEST_ID, KEY_ID) if name in about]
        line = " ".join([*parts, one_line(record.getMessage())])
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return redacted(line)


class JsonLines(JsonFormatter):
    def add_fields(
        self,
        log_data: dict[str, Any],
        record: logging.LogRecord,
        message_dict: dict[str, Any],
    ) -> None:
        log_data["time"] = _time(record)
        log_data["level"] = record.levelname
        log_data["logger"] = record.name
        log_data.update(_of_request(record))
        log_data["message"] = record.getMessage()
        if "exc_info" in message_dict:
            log_data["exception"] = message_dict["exc_info"]

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


def log_config(log_format: Literal["text", "json"]) -> dict[str, Any]:
    """For `dictConfig`: everything to stderr; what libraries say from warnings on."""
    lines = JsonLines if log_format == "json" else TextLines
    ours = {"level": "INFO", "handlers": ["stderr"], "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"lines": {"()": lines}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stderr",
                "formatter": "lines",
            }
        },
        "loggers": {"driftscope": ours, "uvicorn": ours},
        "root": {"level": "WARNING", "handlers": ["stderr"]},
    }
