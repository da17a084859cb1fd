"""For all tests: a warning in the log fails the test, and a state folder to work in."""

from __future__ import annotations

import logging
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

from tapefs.home import Home, open_home

# Tests share their processors with others: slowness alone is no failure.
settings.register_profile("tapefs", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tapefs")

# A shell that starts something in the background has it ignore Ctrl-C, and all that it starts. Tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

#: Parts of the names of modules with few tests that take long: they begin first, so that no worker ends with one alone.
LONG = (
    "drivers/uml/",
    "end_to_end",
    "test_year",
    "untape/",
    "posix/",
    "mount/test_soak",
    "codecs/test_sevenzip",
    "codecs/test_through",
    "sidecar/access/test_matrix",
    "sidecar/test_failover",
    "sidecar/test_fuzzing",
    "sidecar/test_human",
    "sidecar/test_lifecycle",
    "sidecar/test_streams",
    "compare/",
)

#: Enough for a label and a few segments; the files are sparse until written.
TAPE_BYTES = 32 * 1024**2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long; within a module the order stays."""
    items.sort(key=lambda item: not any(part in item.nodeid for part in LONG))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Take the folder away that `scripts/test` has made for this run, if it went well and all workers have ended."""
    folder = os.environ.get("TAPEFS_TESTS_FOLDER")
    if folder and exitstatus == pytest.ExitCode.OK and not hasattr(session.config, "workerinput"):
        shutil.rmtree(folder, ignore_errors=True)


class _Warnings(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.name}: {record.getMessage()}")


def _as_text(_logger: object, _name: str, event: dict[str, object]) -> tuple[tuple[str], dict[str, object]]:
    """Return what to call the standard logger with: the event and all that belongs to it as one line."""
    kept = {key: event.pop(key) for key in ("exc_info", "stack_info") if key in event}
    text = " ".join([str(event.pop("event")), *(f"{key}={value!r}" for key, value in event.items())])
    return (text,), kept


@pytest.fixture(scope="session", autouse=True)
def _structlog_through_logging() -> None:
    """Send what structlog gets to the standard logging, where warnings are seen."""
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, _as_text],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


@pytest.fixture(autouse=True)
def _no_unexpected_warnings(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a warning in the log.

    Tests marked `log_warnings` expect some, and those that use `caplog` look for themselves.
    """
    if request.node.get_closest_marker("log_warnings") or "caplog" in request.fixturenames:
        yield
        return
    handler = _Warnings()
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
    assert not handler.lines, "unexpected warnings in the log: mark the test with log_warnings if they belong there"


@pytest.fixture
def home_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a state folder could be; TAPEFS_HOME points there."""
    path = tmp_path / "state"
    monkeypatch.setenv("TAPEFS_HOME", str(path))
    return path


@pytest.fixture
def home(home_path: Path) -> Home:
    """A fresh state folder with three small blank tapes; TAPEFS_HOME points there."""
    from tapefs.setup_home import NewHome, create_home

    create_home(NewHome(path=home_path, tapes=3, tape_bytes=TAPE_BYTES), 1)
    return open_home(home_path)
