"""The newest lines of the log that somebody should see, in memory: warnings and errors, for those who ask over HTTP.

A handler of the standard logging; any thread. Nothing secret is given to a logger, so nothing secret is kept here.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import traceback
from collections import Counter, deque
from dataclasses import dataclass

#: So many lines are kept.
KEPT_LINES = 2000


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line."""

    number: int
    at_ns: int
    level: str
    logger: str
    text: str
    #: What stood beside the text.
    facts: dict[str, str]
    module: str
    function: str
    path: str
    line: int
    exception: str = ""
    trace: str = ""


class LogRing(logging.Handler):
    """Keeps the newest lines of a level or graver."""

    def __init__(self, level: int = logging.WARNING, kept: int = KEPT_LINES) -> None:
        super().__init__(level)
        self._lines: deque[LogLine] = deque(maxlen=kept)
        self._numbers = itertools.count(1)
        self._guard = threading.Lock()
        #: How many lines there were of each level.
        self.totals: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line; of structlog's the event and what belongs to it, of others their message."""
        try:
            event = dict(record.msg) if isinstance(record.msg, dict) else {"event": record.getMessage()}
            error = record.exc_info[1] if record.exc_info else None
            text = str(event.pop("event", ""))
            skipped = ("level", "logger", "timestamp", "exc_info", "stack_info", "exception")
            facts = {str(key): str(value) for key, value in event.items() if key not in skipped and key[:1] != "_"}
            with self._guard:
                self.totals[record.levelname] += 1
                self._lines.append(
                    LogLine(
                        number=next(self._numbers),
                        at_ns=int(record.created * 1e9),
                        level=record.levelname,
                        logger=record.name,
                        text=text,
                        facts=facts,
                        module=record.module,
                        function=record.funcName or "",
                        path=os.path.basename(record.pathname),
                        line=record.lineno,
                        exception=type(error).__name__ if error else "",
                        trace="".join(traceback.format_exception(error)) if error else "",
                    )
                )
        except Exception:  # noqa: BLE001 - as every handler of logging: a line that cannot be kept ends nothing
            self.handleError(record)

    def newest_first(self) -> list[LogLine]:
        """Return what is kept."""
        with self._guard:
            return list(reversed(self._lines))


#: Of this process; `tapefs.logs` has it listen.
RING = LogRing()
