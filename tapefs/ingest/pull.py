"""Pulls folders of other machines into a spool by rsync, and backs them up from there. Blocking.

A source is backed up only if its rsync has ended with 0, or with 24 (files vanished while it read them), and only if
it has something in it: an empty listing is a file system that is not mounted far more often than an empty folder, and
is never mirrored into the spool. Folders of this machine are backed up where they are, under the same condition.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import stamina

from catalog.records import JobState
from tapefs.client.api import Client
from tapefs.client.job_fields import JobFields
from tapefs.errors import SourceError, TapefsError, Unreachable, UsageError
from tapefs.ingest.manners import DONE, FAILED, Parser, facts_of, locked, run, sidecar, tell

NAME = "ingest_pull"
#: Ended well; and well but for files that vanished meanwhile.
GOOD = (0, 24)
#: Exit codes that may be otherwise in a minute: sockets, streams, timeouts, and ssh's own.
PASSING = (5, 10, 12, 30, 35, 255)
_REMOTE = re.compile(r"(?:[^/:]+@)?(?:[^/:]+|\[[0-9A-Fa-f:]+\]):/")


@dataclass(frozen=True)
class Source:
    """A line of the list."""

    name: str
    place: str

    @property
    def is_remote(self) -> bool:
        """Is it on another machine?"""
        return _REMOTE.match(self.place) is not None or self.place.startswith("rsync://")


class _Passing(Exception):
    """An rsync failed that may succeed the next time."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def main(arguments: list[str], document: str | None) -> int:
    """Run the script; return its exit code."""
    parser = Parser(NAME, document)
    parser.add_argument("list", type=Path, help="a file with one source a line: HOST:/PATH or /PATH, or NAME and that")
    parser.add_argument("--spool", type=Path, required=True, metavar="DIR", help="a folder for what is pulled")
    parser.add_argument("--type", choices=("full", "incremental", "differential"), default="incremental")
    parser.add_argument("--tries", type=int, default=3, help="of each rsync, where it may help [3]")
    parser.add_argument("--timeout", type=int, default=600, metavar="S", help="of rsync, without a byte [600]")
    parser.add_argument("--rsh", metavar="COMMAND", help="instead of `ssh -oBatchMode=yes`")
    parser.add_argument("--rsync", action="append", default=[], metavar="OPTION", help="more options; may be repeated")
    chosen = parser.parse_args(arguments)
    return run(NAME, lambda: _run(chosen))


def _run(chosen: argparse.Namespace) -> int:
    # Standard output is for lines of JSON alone.
    stamina.instrumentation.set_on_retry_hooks([_tell_retry])
    sources = read_list(chosen.list)
    if chosen.tries < 1:
        raise UsageError("--tries: at least 1")
    chosen.spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(chosen.spool / ".lock"), sidecar(chosen.home, chosen.url, chosen.token_file) as client:
        return max((_one(source, chosen, client) for source in sources), default=DONE)


def _tell_retry(details: stamina.instrumentation.RetryDetails) -> None:
    print(f"{NAME}: {details.caused_by}; again in {details.wait_for:.0f} s", file=sys.stderr)


def read_list(path: Path) -> list[Source]:
    """Return the sources of a list; lines that begin with # mean nothing. Raises UsageError."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    sources = [_source(path, number, line.strip()) for number, line in enumerate(lines, 1) if line.strip(" \t")]
    found = [source for source in sources if source is not None]
    names = [source.name for source in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"{path}: two sources are called {twice}: write a name before each")
    return found


def _source(path: Path, number: int, line: str) -> Source | None:
    if line.startswith("#"):
        return None
    first, _, rest = line.partition(" ")
    is_named = rest and not first.startswith("/") and ":" not in first
    name, place = (first, rest.strip()) if is_named else ("", line)
    source = Source(name or re.sub(r"[^A-Za-z0-9._-]+", "-", place).strip("-."), place)
    if not (source.is_remote or place.startswith("/")) or "/" in source.name or source.name.startswith("."):
        raise UsageError(f"{path}, line {number}: {line!r} is neither HOST:/PATH nor /PATH, nor a name before one")
    return source


def _one(source: Source, chosen: argparse.Namespace, client: Client) -> int:
    """Pull and back up one source, tell what became of it; others go on whatever that is."""
    facts: dict[str, object] = {"rsync": None}
    try:
        _wait_others(source, client)
        folder = _pulled(source, chosen, facts) if source.is_remote else _here(source)
        fields = JobFields(name=source.name, sources=[str(folder)], type=chosen.type)
        job = client.wait_job(client.submit(fields, reuse=True).number)
        facts |= facts_of(job)
        is_good = job.state is JobState.COMPLETED
    except Unreachable:
        raise
    except (TapefsError, OSError) as error:
        is_good = False
        facts["error"] = str(error)
        print(f"{NAME}: {source.place}: {error}", file=sys.stderr)
    tell(script=NAME, source=source.place, name=source.name, ok=is_good, **facts)
    return DONE if is_good else FAILED


def _wait_others(source: Source, client: Client) -> None:
    """Wait for the job of a run that was ended: what it reads must not change under it."""
    for job in client.jobs(JobState.QUEUED, JobState.RUNNING):
        if job.name == source.name:
            client.wait_job(job.number)


def _here(source: Source) -> Path:
    """Return a folder of this machine. Raises SourceError when it is not there, or empty."""
    folder = Path(source.place)
    if not folder.is_dir() or not any(folder.iterdir()):
        raise SourceError(f"{folder} is not there or empty: is its file system mounted? Nothing was backed up")
    return folder.resolve()


def _pulled(source: Source, chosen: argparse.Namespace, facts: dict[str, object]) -> Path:
    """Have the spool be as the source is; return where. Raises SourceError, and then nothing is to be backed up."""
    folder = Path(chosen.spool).resolve() / source.name
    folder.mkdir(mode=0o700, exist_ok=True)
    place = source.place.rstrip("/") + "/"
    shell = ["-e", chosen.rsh or "ssh -oBatchMode=yes"]
    common = ["rsync", f"--timeout={chosen.timeout}", *([] if place.startswith("rsync://") else shell), *chosen.rsync]
    try:
        listing = _rsync([*common, "--list-only", place], chosen.tries)[1]
        # One line is for the folder itself.
        if len(listing.splitlines()) < 2:
            raise SourceError(f"{source.place} is empty: is its file system mounted? The spool was left as it is")
        code, _ = _rsync([*common, "-aHAX", "--numeric-ids", "--delete", place, f"{folder}/"], chosen.tries)
    except _Passing as error:
        facts["rsync"] = error.code
        raise SourceError(f"{error}; nothing was backed up") from error
    facts["rsync"] = code
    return folder


def _rsync(command: list[str], tries: int) -> tuple[int, str]:
    """Run rsync, again where that may help; return its exit code and output. Raises _Passing, SourceError."""
    for attempt in stamina.retry_context(on=_Retried, attempts=tries, wait_initial=1.0, wait_max=60.0, timeout=None):
        with attempt:
            return _rsync_once(command)
    raise AssertionError("stamina raises what the last attempt raised")


class _Retried(_Passing):
    pass


def _rsync_once(command: list[str]) -> tuple[int, str]:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
        )
    except OSError as error:
        raise SourceError(f"rsync cannot be run: {error.strerror}") from error
    if done.returncode in GOOD:
        return done.returncode, done.stdout
    said = (done.stderr.strip().splitlines() or ["it said nothing"])[0]
    kind = _Retried if done.returncode in PASSING else _Passing
    raise kind(done.returncode, f"rsync ended with {done.returncode}: {said}")
