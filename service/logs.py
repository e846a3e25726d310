"""One format for the log of every process, on its standard error: time, level, logger, message with its request id."""

import logging
import sys
import time

from service.settings import LogLevel

FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s"
LOGGERS = ("heedful", "models", "service")


class _Lines(logging.Formatter):
    """Starts every line of a record alike, so that a traceback can be told apart among the lines of other processes."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        start = text[: text.index(record.name) + len(record.name) + 1]
        return text.replace("\n", f"\n{start}")


def configure(level: LogLevel) -> None:
    """Let our loggers speak from `level` on; those of the libraries keep their own ways.

    Ray Serve replaces `sys.stderr` in its processes and, in throughput mode, holds back what is written to it.
    """
    handler = logging.StreamHandler(sys.__stderr__)
    handler.setFormatter(_Lines(FORMAT, datefmt="%Y-%m-%dT%H:%M:%S"))
    for name in LOGGERS:
        ours = logging.getLogger(name)
        ours.handlers = [handler]
        ours.setLevel(level.upper())
        ours.propagate = False
