"""What files cannot say of tape files: the lengths of blocks, and whether a filemark ends them.

Each tape file has a note, in one line of text: `1 262144x131072,77176x1 filemark` is 131,072 blocks of 262,144 bytes,
one of 77,176, and a filemark; `1 - open` is no block yet. The 1 is the version. The note is the extended attribute
`user.tapefs.blocks`, which LTFS keeps in its index, so that no tape moves for it. Where there are no such attributes,
or the note is too long for one, it is a file beside the tape file, `00003.blocks`; then it stays one. Blocking.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass

ATTRIBUTE = "user.tapefs.blocks"
#: LTFS takes values up to 4,096 bytes, ext4 a few less.
_LONGEST = 3072
_NO_ATTRIBUTES = (errno.EOPNOTSUPP, errno.EPERM, errno.ENOSPC, errno.E2BIG, errno.ERANGE)
_NOTE = re.compile(rb"1 (?:-|\d{1,8}x\d{1,15}(?:,\d{1,8}x\d{1,15})*) (?:filemark|open)")


@dataclass(frozen=True, slots=True)
class Note:
    """A tape file's blocks."""

    #: Bytes of a block, and how many of them follow one another.
    runs: tuple[tuple[int, int], ...]
    filemark: bool

    def encode(self) -> bytes:
        """Return the line, without a newline."""
        blocks = ",".join(f"{size}x{count}" for size, count in self.runs) or "-"
        return f"1 {blocks} {'filemark' if self.filemark else 'open'}".encode()


def parse_note(line: bytes) -> Note:
    """Read a line. Raises ValueError."""
    line = line.strip()
    if not _NOTE.fullmatch(line):
        raise ValueError(f"{line[:80]!r} does not tell the blocks of a tape file")
    _, blocks, end = line.decode("ascii").split(" ")
    pairs = [] if blocks == "-" else [pair.split("x") for pair in blocks.split(",")]
    runs = tuple((int(size), int(count)) for size, count in pairs)
    if any(size == 0 or count == 0 for size, count in runs):
        raise ValueError(f"{line[:80]!r} has blocks of no length")
    return Note(runs, end == "filemark")


def note_name(name: str) -> str:
    """Return the name of the file that has the note of tape file `name`, if a file has it."""
    return f"{name}.blocks"


def read_note(folder: int, name: str, descriptor: int) -> tuple[Note | None, bool]:
    """Return the note of an open tape file and whether a file has it; None when there is none.

    Raises OSError, and ValueError for a note that makes no sense.
    """
    try:
        beside = os.open(note_name(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except FileNotFoundError:
        return _read_attribute(descriptor), False
    with os.fdopen(beside, "rb") as file:
        return parse_note(file.read(64 * 1024 * 1024)), True


def _read_attribute(descriptor: int) -> Note | None:
    try:
        return parse_note(os.getxattr(descriptor, ATTRIBUTE))
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return None
        raise


def write_note(folder: int, name: str, descriptor: int, note: Note, *, beside: bool) -> bool:
    """Write the note of an open tape file, `beside` it if it was there before; return whether it is beside it now.

    The file beside is synced, the attribute is when the tape file is. Raises OSError.
    """
    line = note.encode()
    if not beside and len(line) <= _LONGEST:
        try:
            os.setxattr(descriptor, ATTRIBUTE, line)
        except OSError as error:
            if error.errno not in _NO_ATTRIBUTES:
                raise
        else:
            return False
    _replace(folder, note_name(name), line + b"\n")
    return True


def _replace(folder: int, name: str, data: bytes) -> None:
    temporary = f".{name}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    descriptor = os.open(temporary, flags, 0o644, dir_fd=folder)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
