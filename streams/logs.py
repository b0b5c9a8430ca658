"""The log of a node: structured lines on standard error, JSON unless a person watches."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from learners.errors import EverlearnError

__all__ = ["configure_logs"]

LEVELS = {
    "": logging.WARNING,
    "everlearn": logging.INFO,
    # These two tell every failed attempt to reach a broker, twenty lines a second; the batch
    # source tells when it is gone and when it is back.
    "aiokafka": logging.CRITICAL,
    "faust.transport": logging.CRITICAL,
}


def configure_logs() -> None:
    """Send our log and that of the libraries to standard error, one line an entry."""
    shared: list[Any] = [
        add_process,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(without_trace)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _renderer(),
            ],
        )
    )
    logging.getLogger().handlers = [handler]
    for name, level in LEVELS.items():
        logging.getLogger(name).setLevel(level)


def add_process(logger: Any, method: str, entry: MutableMapping[str, Any]) -> Any:
    """Say which process speaks: restarts show in the log."""
    entry["process"] = os.getpid()
    return entry


def without_trace(record: logging.LogRecord) -> bool:
    """Drop the traceback of an error of ours: its message says what is wrong and what to do."""
    if record.exc_info and isinstance(record.exc_info[1], EverlearnError):
        record.exc_info = None
    return True


def _renderer() -> Any:
    if sys.stderr.isatty():
        return structlog.dev.ConsoleRenderer()
    return structlog.processors.JSONRenderer()
