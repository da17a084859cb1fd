"""What all ingest scripts have in common: exit codes, a line of JSON, a lock, and a way to a sidecar. Blocking.

| exit code | |
|---|---|
| 0 | all that was to be done is on tape; also when there was nothing |
| 1 | something failed: the line of JSON and standard error say what |
| 64 | bad arguments |
| 75 | not now: another run is at work, or no sidecar answers; the next run may do it |
"""

from __future__ import annotations

import argparse
import fcntl
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tapefs.client import connect
from tapefs.client.api import Client, JobView
from tapefs.client.presence import connected
from tapefs.errors import HomeError, TapefsError, Unreachable, UsageError
from tapefs.home import URL, default_home, open_home

DONE, FAILED, USAGE, AGAIN = 0, 1, 64, 75


class Busy(TapefsError):
    """Another run is at work."""


class Parser(argparse.ArgumentParser):
    """Options that all scripts have; bad arguments end with exit code 64."""

    def __init__(self, name: str, document: str | None, *, is_here: bool = False) -> None:
        """Begin with the common options; `is_here`: it works beside the state folder only."""
        super().__init__(prog=name, description=(document or "").partition("\n")[0])
        self.add_argument("--home", type=Path, help="the state folder [as tapefs itself has it]")
        if is_here:
            return
        self.add_argument("--token-file", type=Path, metavar="FILE", help="its token is in there [TAPEFS_TOKEN_FILE]")
        self.add_argument("--url", help=f"a sidecar that runs, as {URL} has it [the one of the state folder]")

    def exit(self, status: int = 0, message: str | None = None) -> None:  # type: ignore[override]
        """Leave."""
        super().exit(USAGE if status else DONE, message)


def run(name: str, do: Callable[[], int]) -> int:
    """Do it; return the exit code, and say on standard error what went wrong."""
    try:
        return do()
    except (Busy, Unreachable) as error:
        code, text = AGAIN, str(error)
    except UsageError as error:
        code, text = USAGE, str(error)
    except (TapefsError, OSError) as error:
        code, text = FAILED, str(error)
    print(f"{name}: {text}", file=sys.stderr)
    return code


def tell(**facts: object) -> None:
    """Print one line of JSON, whole and at once."""
    sys.stdout.write(msgspec.json.encode(facts).decode() + "\n")
    sys.stdout.flush()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that ends with this process, however that ends. Raises Busy."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(f"another run is at work here: it holds {path}") from error
        yield
    finally:
        os.close(handle)


def usual_lock(name: str) -> Path:
    """Return where runs of that name lock each other out, if nobody says where."""
    folder = Path("/run/lock")
    return (folder if os.access(folder, os.W_OK) else Path(os.environ.get("TMPDIR", "/tmp"))) / f"tapefs-{name}.lock"  # noqa: S108


@contextmanager
def sidecar(home: Path | None, url: str | None, token_file: Path | None = None) -> Iterator[Client]:
    """Be with a sidecar: the one at an address, or that of a state folder, which is started if none runs."""
    if url or (home is None and os.environ.get(URL)):
        with connect(url, token_file=token_file) as client:
            client.status()
            yield client
        return
    folder = home or default_home()
    if not folder.is_dir():
        raise HomeError(f"{folder} is no state folder: make one with `tapefs init`, or name one with --home")
    with connected(open_home(folder)) as presence:
        yield presence.client


def read_own(path: Path) -> bytes:
    """Return what a file of ours holds. Raises UsageError for one that somebody else may have written."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        require_own(path, os.fstat(file.fileno()))
        return file.read()


def require_own(path: Path, status: os.stat_result) -> None:
    """Raise UsageError unless a file or folder is ours, and nobody else may write there."""
    if stat.S_ISLNK(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise UsageError(
            f"{path} is not ours alone (uid {status.st_uid}, mode {stat.S_IMODE(status.st_mode):04o}): whoever can "
            "write there could have any file removed; take it away, or name another folder with --state"
        )


def facts_of(job: JobView) -> dict[str, object]:
    """Return what a line tells of a job that has ended."""
    return {
        "job": job.number,
        "state": job.state.value,
        "set": job.set_id,
        "error": job.error,
        "troubles": job.trouble_count,
    }
