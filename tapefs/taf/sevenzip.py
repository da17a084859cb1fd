"""Members of `.7z`, by the program 7z: it lists the archive, and prints all contents one behind the other. Blocking.

It never writes a file: what the names lead to is decided by who restores. Each content is checked against the CRC-32 in
the listing, which also proves that the two agree. A control character in a name comes as the program shows it.
"""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import IO, BinaryIO

from tapefs.errors import BadStructure, CodecFailed
from tapefs.taf.records import Member, no_content
from tapefs.taf.streams import Stream

_PROGRAMS = ("7z", "7zz", "7za", "7zr")
#: The program finds its way by this; nothing else of the environment matters.
_ENVIRONMENT = {"TZ": "UTC", "LC_ALL": "C.UTF-8", "PATH": "/usr/local/bin:/usr/bin:/bin"}
_TARGET_BYTES = 4096
_FILE_MODE, _DIRECTORY_MODE = 0o644, 0o755
_UNIX_MODE = re.compile(r"\s([-dlpscb])([-rwxsStT]{9})$")
_TIME = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?:\.(\d{1,9}))?")


def members_of_7z(file: BinaryIO, tap: Callable[[Stream], Stream] = lambda stream: stream) -> Iterator[Member]:
    """Yield the members of the archive. Raises BadStructure, CodecFailed, OSError.

    Their offsets are in the stream of all contents, as `contents_of_7z` reads it; `tap` may stand in between.
    """
    # The program opens a file by name, and none that it is not given.
    path = f"/proc/self/fd/{file.fileno()}"
    with _program(["l", "-slt", "-ba"], path, file) as listing, _program(["x", "-so"], path, file) as contents:
        if listing.stdout is None or contents.stdout is None:
            raise AssertionError("7z was started without pipes")
        stream = _Counted(tap(contents.stdout))
        for record in _records(listing.stdout):
            yield from _member(record, stream)
        if stream.read(1):
            raise BadStructure("the archive is damaged: it holds more than it lists")


@contextmanager
def contents_of_7z(file: BinaryIO) -> Iterator[Stream]:
    """Have the contents of all members, one behind the other, as a stream; it need not be read to its end.

    Damage shows as an early end. Raises CodecFailed, OSError.
    """
    with _running(["x", "-so"], f"/proc/self/fd/{file.fileno()}", file, subprocess.DEVNULL) as process:
        if process.stdout is None:
            raise AssertionError("7z was started without pipes")
        yield process.stdout


class _Counted:
    """A stream, and how much of it was read."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.at = 0

    def read(self, size: int, /) -> bytes:
        """Return the next bytes."""
        piece = self._stream.read(size)
        self.at += len(piece)
        return piece


@contextmanager
def _running(
    arguments: list[str], path: str, file: BinaryIO, complaints: int | IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the program, and end it. Raises CodecFailed when there is none."""
    found = next((each for each in map(shutil.which, _PROGRAMS) if each), None)
    if found is None:
        raise CodecFailed("archives of the kind 7z need the program 7z: install the package 7zip or p7zip-full")
    process = subprocess.Popen(
        [found, *arguments, "-sccUTF-8", "-p-", "--", path],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=complaints,
        env=_ENVIRONMENT,
        pass_fds=(file.fileno(),),
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def _program(arguments: list[str], path: str, file: BinaryIO) -> Iterator[subprocess.Popen[bytes]]:
    """Run the program; behind a normal end, raise BadStructure with its words if it failed."""
    with tempfile.TemporaryFile() as complaints, _running(arguments, path, file, complaints) as process:
        yield process
        if process.stdout is not None:
            process.stdout.read()
        if process.wait() != 0:
            complaints.seek(0)
            raise BadStructure(f"the archive is damaged: {_words(complaints.read(4096))}")


def _words(complaints: bytes) -> str:
    lines = [line.strip() for line in complaints.decode(errors="replace").splitlines() if line.strip()]
    return "; ".join(line for line in lines if not line.startswith("/proc/"))[:300] or "7z gives no reason"


def _records(listing: IO[bytes]) -> Iterator[Mapping[str, str]]:
    """Yield what is listed of each member: lines `Key = value`, and an empty one behind."""
    record: dict[str, str] = {}
    for line in listing:
        key, is_pair, value = line.decode("utf-8", "surrogateescape").rstrip("\r\n").partition(" = ")
        if is_pair:
            record.setdefault(key, value)
        elif not key and "Path" in record:
            yield record
            record = {}
    if "Path" in record:
        yield record


def _member(record: Mapping[str, str], contents: _Counted) -> Iterator[Member]:
    """Yield the member; its content is read to the end afterwards, and checked."""
    path = record["Path"].encode("utf-8", "surrogateescape")
    if record.get("Encrypted") == "+":
        raise BadStructure(f"{record['Path']!r} is encrypted: unpack the archive with 7z and its password")
    mode = _mode(record.get("Attributes", ""))
    offset = contents.at
    content = _Content(contents, _size(record), record.get("CRC", ""), record["Path"])
    target = b""
    if stat.S_ISLNK(mode):
        target = content.whole(_TARGET_BYTES)
    yield Member(
        path=path,
        mode=mode,
        uid=0,
        gid=0,
        mtime_ns=_time_ns(record.get("Modified", "")),
        size_bytes=content.size_bytes if stat.S_ISREG(mode) else 0,
        target=target,
        is_link=False,
        rdev=0,
        read=content.read if stat.S_ISREG(mode) else no_content,
        offset=offset,
    )
    content.drain()


class _Content:
    """A member's share of the contents."""

    def __init__(self, contents: Stream, size_bytes: int, crc: str, name: str) -> None:
        self.size_bytes = size_bytes
        self._contents = contents
        self._left = size_bytes
        self._name = name
        self._wanted = int(crc, 16) if re.fullmatch(r"[0-9A-Fa-f]{8}", crc) else None
        self._crc = 0

    def read(self, size: int) -> bytes:
        """Return the next piece; its last one only if the checksum is right. Raises BadStructure."""
        piece = self._contents.read(min(size, self._left))
        if not piece and self._left and size:
            raise BadStructure(f"the archive is damaged: the content of {self._name!r} ends early")
        self._left -= len(piece)
        self._crc = zlib.crc32(piece, self._crc)
        if piece and not self._left and self._wanted not in (None, self._crc):
            raise BadStructure(f"the archive is damaged: the content of {self._name!r} has another checksum")
        return piece

    def whole(self, most: int) -> bytes:
        """Return all of it. Raises BadStructure when that is more than `most`."""
        if self.size_bytes > most:
            raise BadStructure(f"the link {self._name!r} has a target of {self.size_bytes} bytes")
        return b"".join(iter(lambda: self.read(most), b""))

    def drain(self) -> None:
        """Pass over what was not read. Raises BadStructure."""
        while self.read(1024 * 1024):
            pass


def _size(record: Mapping[str, str]) -> int:
    size = record.get("Size", "")
    if record.get("Folder") == "+" or not size:
        return 0
    if not re.fullmatch(r"\d{1,19}", size):
        raise BadStructure(f"the archive is damaged: {record['Path']!r} has {size!r} bytes")
    return int(size)


def _mode(attributes: str) -> int:
    """Return st_mode by the attributes as they are listed: `A_ -rw-r--r--`, or only `D`, from Windows."""
    found = _UNIX_MODE.search(attributes)
    if found is None:
        is_folder = "D" in attributes
        return stat.S_IFDIR | _DIRECTORY_MODE if is_folder else stat.S_IFREG | _FILE_MODE
    kinds = {"d": stat.S_IFDIR, "l": stat.S_IFLNK}
    return kinds.get(found[1], stat.S_IFREG) | _permissions(found[2])


def _permissions(text: str) -> int:
    """Return the bits that `rwxr-sr-t` and the like stand for."""
    bits = 0
    for place, letter in enumerate(text):
        if letter not in "-ST":
            bits |= 0o400 >> place
        if letter in "sStT":
            bits |= 0o4000 >> (place // 3)
    return bits


def _time_ns(text: str) -> int:
    found = _TIME.match(text)
    if found is None:
        return 0
    try:
        seconds = int(datetime.fromisoformat(found[1]).replace(tzinfo=UTC).timestamp())
    except ValueError as error:
        raise BadStructure(f"the archive is damaged: {text!r} is no time") from error
    return seconds * 1_000_000_000 + int((found[2] or "").ljust(9, "0"))
