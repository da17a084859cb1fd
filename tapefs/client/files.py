"""Files of the archive: what is there, and their bytes into files of this machine. Pure but for the files it writes.

A download writes beside its target, into `.NAME.ETAG.part`, and renames that when all is there and right. What is in a
set does not change and its tags never come again, so a download that was interrupted goes on in that file, until the
machine is started again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import msgspec
from msgspec import UNSET, UnsetType

from tapefs.client.calling import Ask, Fetch, Head, Pause, Steps, Taker, Work, call, in_path
from tapefs.client.transport import retry_after_s
from tapefs.client.waits import until
from tapefs.errors import NotNow, RecallFailed, TapefsError, TooManyRequests, Unreachable

FILES, CONTENT, DOWNLOAD = "/api/v1/files", "/api/v1/content", "/api/v1/download"
#: So often in a row a download breaks without a byte more before it is given up.
_VAIN = 5
_AGAIN_S = 1.0
#: Compressed answers have no ranges, and come late where they come by lines.
PLAIN = {"Accept-Encoding": "identity"}
_BOOT = Path("/proc/sys/kernel/random/boot_id")

OnBytes = Callable[[int, int], object]


class FileView(msgspec.Struct, frozen=True, kw_only=True):
    """What is told of a name; unknown keys are ignored."""

    path: str
    #: For URLs, and for the calls here where the name is not UTF-8: every byte escaped where it has to be.
    url_path: str
    name: str
    type: str
    size: int
    mode: str
    uid: int
    gid: int
    modified: datetime | None = None
    etag: str = ""
    #: Of a file: online, nearline, staging, offline or locked.
    state: str | None = None
    target: str | None = None
    #: Of a file that was asked for by itself.
    sha256: str | None = None
    tapes: str | None = None
    #: Of a folder: a page of what is in it, and where the next one begins.
    entries: list[FileView] = []
    next: int | None = None

    @property
    def is_folder(self) -> bool:
        """May it be listed?"""
        return self.type == "directory"


class StagedFile(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How far one file of a staging is."""

    path: str
    state: str = ""
    error: str = ""


class StagingView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A staging that an answer 202 has named."""

    id: str
    files: list[StagedFile]
    completed_at: int | UnsetType = UNSET

    @property
    def is_over(self) -> bool:
        """Has it come to an end, good or bad?"""
        return self.completed_at is not UNSET


class _Cold(msgspec.Struct, frozen=True):
    url: str


class FileCalls:
    """The calls. A path is one in the mount, from its root: `jobs/NAME/latest/…`; bytes where it is not UTF-8."""

    @call
    @staticmethod
    def show(path: str | bytes) -> Ask[FileView]:
        """Tell what is at a path, of a folder without what is in it. Raises NoSuchThing."""
        return Ask("GET", f"{_url(FILES, path)}?limit=1", None, FileView).giving(
            lambda view: msgspec.structs.replace(view, entries=[], next=None)
        )

    @call
    @staticmethod
    def folder(path: str | bytes = "") -> Steps[list[FileView]]:
        """Return all that is in a folder, in the order of the tape. Raises NoSuchThing."""
        found: list[FileView] = []
        start: int | None = 0
        while start is not None:
            page: FileView = yield Ask("GET", f"{_url(FILES, path)}?limit=1000&start={start}", None, FileView)
            if not page.is_folder:
                raise NotNow(f"{page.path} is no folder")
            found += page.entries
            start = page.next
        return found

    @call
    @staticmethod
    def staging(staging_id: str) -> Ask[StagingView]:
        """Tell how far a staging is. Raises NoSuchThing."""
        return Ask("GET", f"/api/v1/stagings/{in_path(staging_id)}", None, StagingView)

    @call
    @staticmethod
    def download(path: str | bytes, target: Path, on_bytes: OnBytes | None = None) -> Steps[FileView]:
        """Write a file's bytes to `target`, from tape if they have to be; goes on where it was interrupted.

        `on_bytes` is called with the bytes that are there and all bytes, from any thread. What was at `target` is
        replaced when all is there, and its SHA-256 right. Raises NoSuchThing, NotNow, RecallFailed, OSError.
        """
        view: FileView = yield Ask("GET", _url(FILES, path), None, FileView)
        if view.type != "file":
            raise NotNow(f"{view.path} is a {view.type}: ask for what is in it, or for an archive of it")
        part = _part_of(target, view.etag)
        taker = _PartFile(part, view.size, on_bytes, f'"{view.etag}"')
        try:
            yield from _all_bytes(f"{CONTENT}/{view.url_path.lstrip('/')}", view, taker)
        finally:
            taker.close()
        yield Work(lambda: _settle(part, target, view.sha256))
        return view

    @call
    @staticmethod
    def download_archive(
        path: str | bytes, target: Path, form: str = "tar.zst", on_bytes: OnBytes | None = None
    ) -> Steps[None]:
        """Write a folder with all that is in it to `target`, as an archive `tar.zst` or `zip`.

        An archive is made anew each time: one that breaks off is begun again by the caller. Raises as `download`.
        """
        part = _part_of(target, f"{os.getpid()}")
        taker = _PartFile(part, None, on_bytes, "")
        try:
            url = f"{_url(DOWNLOAD, path)}?format={quote(form, safe='')}"
            head: Head = yield Fetch(url, taker, PLAIN)
            while head.status == 202:
                yield from _staged(head)
                head = yield Fetch(url, taker, PLAIN)
            taker.close()
            yield Work(lambda: _settle(part, target, None))
        except BaseException:
            taker.close()
            part.unlink(missing_ok=True)
            raise

    @call
    @staticmethod
    def pack(path: str | bytes, taker: Taker, form: str = "tar.zst") -> Steps[Head]:
        """Have what is at a path packed, and the archive taken as it comes; tape by tape, however long that takes.

        Raises NoSuchThing, UsageError for more than 100,000 entries; Unreachable when it breaks off.
        """
        head: Head = yield Fetch(f"{_url(DOWNLOAD, path)}?format={quote(form, safe='')}&wait=true", taker, PLAIN)
        return head


def _all_bytes(url: str, view: FileView, taker: _PartFile) -> Steps[None]:
    """Fetch until all is there; what breaks is asked for again from there on."""
    vain = 0
    while taker.there < view.size:
        before = taker.there
        headers = PLAIN | ({"Range": f"bytes={before}-", "If-Range": taker.tag} if before else {})
        try:
            head: Head = yield Fetch(url, taker, headers)
        except TooManyRequests as error:
            yield Pause(error.retry_after_s)
            continue
        except Unreachable:
            vain = 0 if taker.there > before else vain + 1
            if vain >= _VAIN:
                raise
            yield Pause(_AGAIN_S)
            continue
        if head.status == 202:
            yield from _staged(head)
        elif head.headers.get("etag") != taker.tag:
            raise NotNow(f"{view.path} is another file now: a newer set has come; ask for it again")
        elif taker.there <= before:
            raise TapefsError(f"{view.path} has {view.size} bytes, but the sidecar sends no more than {taker.there}")


def _staged(head: Head) -> Steps[None]:
    """Wait until what an answer 202 has named is staged. Raises RecallFailed when it cannot be."""
    url = msgspec.json.decode(head.data, type=_Cold).url
    yield Pause(min(retry_after_s(head.headers), 1.0))
    over: StagingView = yield from until(Ask("GET", url, None, StagingView), lambda view: view.is_over, None)
    failed = next((file for file in over.files if file.error), None)
    if failed is not None:
        raise RecallFailed(f"{failed.path} cannot be had: {failed.error}")


@dataclass
class _PartFile:
    """What is there of a download. `size` None: nobody knows how much there will be."""

    path: Path
    size: int | None
    on_bytes: OnBytes | None
    #: The only entity tag whose bytes are taken; empty: any.
    tag: str

    def __post_init__(self) -> None:
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            raise NotNow(f"another download writes {self.path}") from error
        self.there = os.fstat(self._file).st_size if self.size is not None else 0
        if self.size is None or self.there > self.size:
            self.there = 0
        os.ftruncate(self._file, self.there)

    def begin(self, head: Head) -> bool:
        """Take the body of 200 from the front, and of 206 where it goes on."""
        if self.tag and head.headers.get("etag") != self.tag:
            return False
        if head.status == 206:
            return head.headers.get("content-range", "").startswith(f"bytes {self.there}-")
        if head.status != 200:
            return False
        self.there = 0
        os.ftruncate(self._file, 0)
        return True

    def take(self, data: bytes) -> None:
        """Write the next bytes."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self._file, view, self.there)
            self.there += written
            view = view[written:]
        if self.on_bytes is not None:
            self.on_bytes(self.there, self.size or self.there)

    def close(self) -> None:
        """Close the file; harmless twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _settle(part: Path, target: Path, sha256: str | None) -> None:
    """Check what has come, make it last, and give it its name. Raises TapefsError when it is not what was asked for."""
    with part.open("rb") as file:
        if sha256 is not None:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != sha256:
                part.unlink()
                raise TapefsError(f"{target} is not as it was backed up: its SHA-256 is {digest}, not {sha256}")
        os.fsync(file.fileno())
    part.replace(target)
    with suppress(OSError):  # Some file systems cannot; the bytes are there all the same.
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _part_of(target: Path, tag: str) -> Path:
    # Behind a crash of the machine a file may have its length and not its bytes, so that nothing goes on in it.
    boot = _BOOT.read_text().strip()
    return target.with_name(f".{target.name[:200]}.{hashlib.sha256(f'{boot} {tag}'.encode()).hexdigest()[:16]}.part")


def _url(call_path: str, path: str | bytes) -> str:
    raw = (path if isinstance(path, bytes) else os.fsencode(path)).strip(b"/")
    return f"{call_path}/{quote(raw)}" if raw else call_path
