"""A drop folder: files appear, settle, are archived and verified, and then leave it. Blocking; main thread (leases).

A batch is noted in a journal before its job is asked for, with the number of the batch as the job's description. A run
that was killed at any place is found by the next one: it looks for the job, waits for it, and goes on. Nothing leaves
the folder before the job has ended well, which for an archive is behind reading back every copy; and a file leaves only
if type, inode, size, mtime and ctime are what they were before the job was asked for, and nobody has it open to write.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import fnmatch
import os
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from catalog.ids import JobNumber
from catalog.records import JobState
from tapefs.backup.lease import deaf_to_writers
from tapefs.client.api import Client, JobView
from tapefs.client.job_fields import JobFields, encoded
from tapefs.durable import replace_file, sync_folder
from tapefs.errors import NotNow, UsageError
from tapefs.ingest.manners import (
    DONE,
    FAILED,
    Parser,
    facts_of,
    locked,
    read_own,
    require_own,
    run,
    sidecar,
    tell,
)
from tapefs.restore.beneath import BadName, Beneath

NAME = "ingest_drop_folder"
#: What programs call files that are not whole yet. Names that begin with a dot are left alone as well.
UNFINISHED = ("*.part", "*.partial", "*.tmp", "*.crdownload", "*.filepart", "*~", "#*#")
#: Of one batch: half of what the sidecar takes as a body.
MOST_FILES, MOST_PATH_BYTES = 5000, 400_000
_LOOK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: The clock of a file may be so coarse.
LEAST_SETTLE_S = 2.0


class Noted(msgspec.Struct, frozen=True):
    """A file as it was before its job was asked for."""

    #: In base64 by msgspec: names are bytes.
    path: bytes
    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    def is_still(self, status: os.stat_result, *, moved: bool = False) -> bool:
        """Is it the same, unchanged? Moving a file changes its ctime."""
        now = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        return (
            stat.S_ISREG(status.st_mode)
            and now == (self.device, self.inode, self.size, self.mtime_ns)
            and (moved or status.st_ctime_ns == self.ctime_ns)
        )


class Journal(msgspec.Struct, frozen=True):
    """A batch that is on its way."""

    batch: str
    #: None: it was about to be asked for.
    job: int | None
    files: list[Noted]


class _Trouble(msgspec.Struct, frozen=True):
    path: str
    reason: str


class _Report(msgspec.Struct, frozen=True):
    """What matters here of a set's report."""

    #: Of all runs; a set may have none noted.
    troubles: int = 0
    trouble_list: tuple[_Trouble, ...] = ()


@dataclass(frozen=True)
class Drop:
    """A folder, and what becomes of what lies in it."""

    folder: bytes
    #: Where files go; None: they are removed.
    done: bytes | None
    settle_s: float
    name: str
    copies: int
    journal: Path


def main(arguments: list[str], document: str | None) -> int:
    """Run the script; return its exit code."""
    parser = Parser(NAME, document)
    parser.add_argument("folder", type=Path)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--done", type=Path, metavar="DIR", help="move what is on tape there; on the same file system")
    what.add_argument("--remove", action="store_true", help="remove what is on tape")
    parser.add_argument("--name", help="in the archive [the folder's own]")
    parser.add_argument("--copies", type=int, default=1, help="on so many tapes [1]")
    parser.add_argument("--settle", type=float, default=60.0, metavar="S", help="unchanged for so long [60]")
    parser.add_argument("--state", type=Path, metavar="DIR", help="for lock and journal [FOLDER/.tapefs-ingest]")
    parser.add_argument("--watch", type=float, metavar="S", help="go on, and look every so often; else once, for cron")
    chosen = parser.parse_args(arguments)
    return run(NAME, lambda: _run(chosen))


def _run(chosen: argparse.Namespace) -> int:
    drop, state = _drop_of(chosen)
    state.mkdir(mode=0o700, exist_ok=True)
    require_own(state, state.lstat())
    with locked(state / "lock"):
        if chosen.watch is None:
            return _once(drop, chosen)
        while True:
            run(NAME, lambda: _once(drop, chosen))
            time.sleep(chosen.watch)


def _once(drop: Drop, chosen: argparse.Namespace) -> int:
    with sidecar(chosen.home, chosen.url, chosen.token_file) as client:
        return work_off(drop, client)


def _drop_of(chosen: argparse.Namespace) -> tuple[Drop, Path]:
    folder = chosen.folder.resolve()
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder")
    if chosen.settle < LEAST_SETTLE_S:
        raise UsageError(f"--settle: at least {LEAST_SETTLE_S:g} seconds")
    if chosen.watch is not None and chosen.watch <= 0:
        raise UsageError("--watch: more than no seconds")
    if not 1 <= chosen.copies <= 8:
        raise UsageError("--copies: 1 to 8")
    done = chosen.done.resolve() if chosen.done else None
    if done is not None:
        done.mkdir(parents=True, exist_ok=True)
        if done.stat().st_dev != folder.stat().st_dev:
            raise UsageError(f"{done} is on another file system than {folder}: files could not be moved there at once")
        if done == folder or done in folder.parents:
            raise UsageError(f"{done} is, or holds, the drop folder")
    # The usual one lies where others may write, who could have put a link there.
    state = chosen.state.resolve() if chosen.state else folder / ".tapefs-ingest"
    drop = Drop(
        folder=os.fsencode(folder), done=None if done is None else os.fsencode(done), settle_s=chosen.settle,
        name=chosen.name or folder.name, copies=chosen.copies, journal=state / "batch.json",
    )  # fmt: skip
    return drop, state


def work_off(drop: Drop, client: Client) -> int:
    """Finish what an earlier run has begun, then archive what has settled, batch by batch; return the exit code."""
    code = DONE
    if drop.journal.exists():
        code = max(code, _go_on(drop, client, msgspec.json.decode(read_own(drop.journal), type=Journal)))
    seen: set[bytes] = set()
    while files := list(_batch(drop, seen)):
        # What stays where it is comes again with the next run, not in this one.
        seen.update(file.path for file in files)
        journal = Journal(batch=str(uuid.uuid4()), job=None, files=files)
        replace_file(drop.journal, msgspec.json.encode(journal))
        code = max(code, _ask(drop, client, journal))
    return code


def _go_on(drop: Drop, client: Client, journal: Journal) -> int:
    """Take up the batch of a run that was ended."""
    number = journal.job
    if number is None:
        mark = _mark(journal)
        number = next((job.number for job in client.jobs() if job.description == mark), None)
    if number is None:
        drop.journal.unlink()  # Its job was never asked for; what it named is looked at anew.
        return DONE
    job = client.job(JobNumber(number))
    if job.state in (JobState.FAILED, JobState.CANCELLED):
        with suppress(NotNow):  # There is nothing to go on with: what stays is taken anew.
            client.resume_job(JobNumber(number))
    elif job.state is JobState.PENDING:
        with suppress(NotNow):  # The sidecar was ended between recording and queueing it.
            client.run_job(JobNumber(number))
    return _settle(drop, client, journal, client.wait_job(JobNumber(number)))


def _ask(drop: Drop, client: Client, journal: Journal) -> int:
    fields = JobFields(
        name=drop.name, sources=[encoded(file.path) for file in journal.files], type="archive", copies=drop.copies,
        keep_sources=True, description=_mark(journal),
    )  # fmt: skip
    job = client.submit(fields)
    replace_file(drop.journal, msgspec.json.encode(msgspec.structs.replace(journal, job=job.number)))
    return _settle(drop, client, journal, client.wait_job(job.number))


def _mark(journal: Journal) -> str:
    return f"drop folder, batch {journal.batch}"


def _settle(drop: Drop, client: Client, journal: Journal, job: JobView) -> int:
    """Have what is on tape leave the folder; tell what became of the batch."""
    kept: dict[bytes, str] = {}
    gone = 0
    if job.state is JobState.COMPLETED:
        kept = _troubled(client, journal, job)
        gone = _leave(drop, journal, kept)
    is_good = job.state is JobState.COMPLETED and not kept
    tell(
        script=NAME, folder=_text(drop.folder), batch=journal.batch, ok=is_good, files=len(journal.files),
        bytes=sum(file.size for file in journal.files), gone=gone,
        kept=[{"path": _text(path), "reason": kept[path]} for path in kept], **facts_of(job),
    )  # fmt: skip
    drop.journal.unlink()
    sync_folder(drop.journal.parent)
    return DONE if is_good else FAILED


def _troubled(client: Client, journal: Journal, job: JobView) -> dict[bytes, str]:
    """Return the files that are not on tape as they were, with the reason; all, where that cannot be told of each.

    The job counts the troubles of its last run, where it counts them still, the report those of all.
    """
    if job.set_id is None:
        return {file.path: "the job has no set any more" for file in journal.files}
    stored = client.set(job.set_id)
    report = client.call("GET", f"/api/v1/sets/{job.set_id}/report?limit=1000", None, _Report)
    count = max(job.trouble_count, report.troubles, stored.troubled_files, stored.unread_files)
    ours = {_text(file.path): file.path for file in journal.files}
    told = {ours[each.path]: each.reason for each in report.trouble_list if each.path in ours}
    if len(told) < count or stored.files < len(ours) - len(told):
        unclear = "the report does not tell of all that is amiss"
        return {file.path: told.get(file.path, unclear) for file in journal.files}
    return told


def _leave(drop: Drop, journal: Journal, kept: dict[bytes, str]) -> int:
    """Move or remove what is unchanged; what is not is noted in `kept`. Returns how many have left."""
    gone = 0
    tree = _tree(drop)
    stamp = os.fsencode(f"{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}-{journal.batch[:8]}")
    with closing(tree), deaf_to_writers():
        for file in journal.files:
            if file.path in kept:
                continue
            try:
                _let_go(drop, tree, file, stamp)
                gone += 1
            except FileNotFoundError:
                gone += 1  # A run that was ended has moved it, or somebody has.
            except (_Stays, BadName, OSError) as error:
                kept[file.path] = str(error)
    return gone


class _Stays(Exception):
    """The file does not leave; the message says why."""


def _tree(drop: Drop) -> Beneath:
    """Return the drop folder, to be closed. Others may write there: a link in a file's way is not followed."""
    return Beneath(os.open(drop.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


def _inner(drop: Drop, path: bytes) -> bytes:
    """Return a path as it is from the drop folder. Raises _Stays."""
    top = drop.folder.rstrip(b"/") + b"/"
    if not path.startswith(top):
        raise _Stays("it does not lie in the drop folder")
    return path[len(top) :]


def _let_go(drop: Drop, tree: Beneath, file: Noted, stamp: bytes) -> None:
    """Move or remove one file, while nobody can open it for writing. Raises _Stays, BadName, OSError."""
    inner = _inner(drop, file.path)
    above, name = tree.above(inner)
    handle = os.open(name, _LOOK, dir_fd=above)
    try:
        if is_written_to(handle):
            raise _Stays("somebody has it open for writing")
        if not file.is_still(os.fstat(handle)) or not file.is_still(os.lstat(name, dir_fd=above)):
            raise _Stays("it has changed since it was archived")
        if drop.done is None:
            os.unlink(name, dir_fd=above)
            return
        target = os.path.join(drop.done, stamp, inner)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.rename(name, target, src_dir_fd=above)
        if not file.is_still(os.lstat(target), moved=True):
            # Another one had taken its name; it goes back.
            os.link(target, name, dst_dir_fd=above, follow_symlinks=False)
            os.unlink(target)
            raise _Stays("it was replaced at that moment")
    finally:
        os.close(handle)


def _batch(drop: Drop, seen: set[bytes]) -> Iterator[Noted]:
    """Yield files that have settled and were not seen, as many as one job takes."""
    path_bytes = count = 0
    with closing(_tree(drop)) as tree, deaf_to_writers():
        for path in _files(drop.folder, os.fsencode(drop.journal.parent), drop.done):
            noted = None if path in seen else _settled(drop, tree, path)
            if noted is None:
                continue
            path_bytes += len(path)
            count += 1
            if count > MOST_FILES or path_bytes > MOST_PATH_BYTES:
                return
            yield noted


def _files(folder: bytes, *others: bytes | None) -> Iterator[bytes]:
    """Yield the regular files below, in order; never through a link, nor what lies in `others` or begins with a dot."""
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda each: each.name)
    for entry in entries:
        if entry.name.startswith(b".") or entry.path in others:
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _files(entry.path, *others)
        elif entry.is_file(follow_symlinks=False) and not _is_unfinished(os.fsdecode(entry.name)):
            yield entry.path


def _is_unfinished(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name.lower(), pattern) for pattern in UNFINISHED)


def _settled(drop: Drop, tree: Beneath, path: bytes) -> Noted | None:
    """Return a file that has been left alone for long enough, and that nobody has open for writing."""
    try:
        above, name = tree.above(_inner(drop, path))
        handle = os.open(name, _LOOK, dir_fd=above)
    except OSError:
        return None  # It is just going away, or not ours to read: the next run looks again.
    try:
        status = os.fstat(handle)
        # ctime is set by the kernel alone: a copy that keeps an old mtime has a new ctime.
        quiet_s = time.time() - max(status.st_mtime, status.st_ctime)
        if not stat.S_ISREG(status.st_mode) or quiet_s < drop.settle_s:
            return None
        if is_written_to(handle):
            return None
        return Noted(path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    finally:
        os.close(handle)


def is_written_to(handle: int) -> bool:
    """Has anybody the file open for writing? Where the kernel does not tell (NFS) its times have to do.

    A lease that was granted is held until the file is closed: who opens it for writing waits so long.
    """
    try:
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    return False


def _text(path: bytes) -> str:
    return path.decode(errors="backslashreplace")
