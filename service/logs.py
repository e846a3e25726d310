"""One format for the log of every process, on its standard error: lines for people, or an object of JSON on each."""

import json
import logging
import sys
import time
from collections.abc import MutableMapping
from typing import Any

from service.settings import LogFormat, LogLevel

FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s"
TIME = "%Y-%m-%dT%H:%M:%S"
LOGGERS = ("heedful", "models", "service")
# Of all that other processes print, our own lines are those in which this is found.
OWN_LINES = rf"""(Z [A-Z]+ |"logger": ")({"|".join(LOGGERS)})\."""


class _Lines(logging.Formatter):
    """Starts every line of a record alike, so that a traceback can be told apart among the lines of other processes."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        start = text[: text.index(record.name) + len(record.name) + 1]
        return text.replace("\n", f"\n{start}")


class _Json(logging.Formatter):
    """An object on a line of its own; a record's `fields` are members of it."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        members = {
            "time": f"{self.formatTime(record, TIME)}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            members["exception"] = self.formatException(record.exc_info)
        return json.dumps(members, ensure_ascii=False)


def configure(level: LogLevel, format_: LogFormat = "text") -> None:
    """Let our loggers speak from `level` on; those of the libraries keep their own ways.

    Ray Serve replaces `sys.stderr` in its processes and, in throughput mode, holds back what is written to it.
    """
    handler = logging.StreamHandler(sys.__stderr__)
    handler.setFormatter(_Json() if format_ == "json" else _Lines(FORMAT, datefmt=TIME))
    for name in LOGGERS:
        ours = logging.getLogger(name)
        ours.handlers = [handler]
        ours.setLevel(level.upper())
        ours.propagate = False


def note(scope: MutableMapping[str, Any], **fields: object) -> None:
    """Add members to the line that the log will have about this request; `scope` is its ASGI scope."""
    scope.setdefault("state", {}).setdefault("log", {}).update(fields)
