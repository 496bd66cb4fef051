"""Logs as one JSON object a line on standard output, the request's id in each; of pictures their size alone."""

from __future__ import annotations

import logging
import sys

from pythonjsonlogger.json import JsonFormatter

LOGGER = "kintsugi"
_LOGGERS = (LOGGER, "bentoml", "uvicorn.error")
_OURS_INSTEAD = ("bentoml.access",)


def configure_logs() -> None:
    """Let this server and what runs it log as JSON; BentoML's line for every request gives way to ours."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        JsonFormatter(
            "{levelname}{name}{message}",
            style="{",
            rename_fields={"levelname": "level", "name": "logger", "message": "event"},
            timestamp="time",
        )
    )
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
    for name in _OURS_INSTEAD:
        logging.getLogger(name).disabled = True
