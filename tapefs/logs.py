"""Logs on stderr: lines for people on a terminal, JSON elsewhere; ours and those of libraries in one form.

Nothing secret is ever given to a logger: no token, no header, no body.
"""

from __future__ import annotations

import logging
import os
import sys

import orjson
import structlog
from structlog.typing import Processor

from tapefs.log_ring import RING

#: Environment variable for the least level, such as `debug`.
VARIABLE = "TAPEFS_LOG"
#: … and for the form: `json` or `text`; else text on a terminal, JSON elsewhere.
FORM_VARIABLE = "TAPEFS_LOG_FORMAT"


def configure_logs(level: str = "") -> None:
    """Set up logging for the process, from that level on unless the environment says another."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    form = os.environ.get(FORM_VARIABLE, "").lower()
    is_text = form == "text" or (form != "json" and sys.stderr.isatty())
    end: list[Processor] = (
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
        if is_text
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_dump)]
    )
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *end]
        )
    )
    root = logging.getLogger()
    root.handlers = [handler, RING]
    root.setLevel(logging.getLevelNamesMapping().get((os.environ.get(VARIABLE) or level).upper(), logging.INFO))


def _dump(value: object, **_: object) -> str:
    return orjson.dumps(value, default=repr).decode("utf-8", "backslashreplace")
