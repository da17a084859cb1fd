#!/usr/bin/env python3
"""Get files back from a tape that tapefs wrote, without tapefs.

This one file is enough. It needs Linux, Python 3.8 or newer, and the program `zstd`; nothing else. It was written from
the description of the format (docs/format.md) alone, and is meant to be read: if it does not do what you need, change
it.

    untape.py list SOURCE...                            what is on the tapes, tape file by tape file
    untape.py sets SOURCE...                            which backups (sets) are there
    untape.py files SET SOURCE...                       the names in a backup, as `ls -l` shows them
    untape.py restore SET SOURCE... --to DIR [PATH...]  bring a backup back below DIR, or only some paths of it
    untape.py check SOURCE...                           read everything and compare it with its checksums
    untape.py drive-key FILE VOLUME                     of a tape that the drive has encrypted: the key for that drive

SOURCE is a tape drive (/dev/nst0; the "n" matters), the folder of a virtual cartridge, or a folder into which the tape
files were dumped with `dd`, one file each, under names that sort in their order (00000, 00001, ...). Give as many as
there are. With one drive and several tapes you are asked for each tape by its label. SET is the beginning of a set's
id, as `sets` shows it, or its number. Of an incremental set everything is brought back that was there then, so the
tapes of the sets that it builds on are needed, too.

What is damaged costs only the files in it; they are named, and the exit code is 1. Nothing is written outside of DIR,
and nothing that exists is replaced. Set-id bits, capabilities and device nodes come back only with --special: give it
if you trust who wrote the tape.

How it works: every TRAILER that is needed is read into a temporary database (sqlite3, on disk), oldest set first, which
gives the tree; then each PAYLOAD is read once, from front to end, frame by frame.

It is one file on purpose, however long: after a disaster it is copied, or typed in from paper, by itself.
Its parts, in their order:

    words for the user          sources: tape files as blocks     programs that unpack     the small structures
    what is on a tape           the tree of a set                 reading content          writing, beneath the target
    commands
"""

from __future__ import annotations

import argparse
import array
import base64
import binascii
import bisect
import contextlib
import errno
import fcntl
import hashlib
import hmac
import itertools
import json
import os
import platform
import re
import shutil
import sqlite3
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib

MIB = 1024 * 1024
LINE_BYTES_MAX = 16 * MIB
FRAME_BYTES_MAX = 64 * MIB
BLOCK_BYTES_MAX = 16 * MIB
CHANGED, UNREADABLE, LINKED, SPARSE, FRESH = 1, 4, 8, 16, 64
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
AGE_MAGIC = b"age-encryption.org/v1\n"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


NEEDS_KEY = (
    "it is encrypted: give the file with the key as --identity FILE, and have the program `age` installed"
    " (by hand: age -d -i FILE)"
)
NEEDS_DRIVE_KEY = (
    "the drive has encrypted this tape: give a drive that encrypts the tape's key first, with the program `stenc`:"
    " untape.py drive-key FILE VOLUME > drive.key; stenc -f /dev/nst0 -e mixed -k drive.key -a 1 --ckod"
)
#: What the key of a tape is made with; the UUID of the tape follows.
DRIVE_KEY_INFO = b"tapefs drive encryption AES-256-GCM "


class Damaged(Exception):
    """What was read is not what was written, or not what the format allows; the message says what."""


class Failed(Exception):
    """It cannot go on; the message is for the user."""


# ---- Words for the user ----------------------------------------------------------------------------------------------


def shown(name):
    """Return a name (bytes) so that no terminal can be harmed by it, and so that it can be told from others."""
    text = name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else str(name)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def tell(text):
    print(text, file=sys.stderr, flush=True)


def day(time_ns):
    """Return a time as people write it, in UTC."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time_ns // 10**9))
    except (OverflowError, ValueError, OSError):
        return f"{time_ns} ns"


class Report:
    """Remembers whether anything was wrong, and says each kind of smaller trouble once, with a count."""

    def __init__(self):
        self.is_bad = False
        self._counted = {}

    def bad(self, text):
        self.is_bad = True
        tell(text)

    def count(self, text, name):
        """Something that was left off on purpose or because the file system does not have it."""
        first, count = self._counted.get(text, (name, 0))
        self._counted[text] = first, count + 1

    def finish(self):
        for text, (first, count) in self._counted.items():
            tell(f"{text}: {count} (first: {shown(first)})")
        return 1 if self.is_bad else 0


# ---- Sources: tape files, by number, as blocks -----------------------------------------------------------------------


class Folder:
    """A virtual cartridge, or a folder of dumped tape files."""

    def __init__(self, path):
        self.path = path
        #: By number of the tape file.
        self.files = {}
        self.refresh()

    def refresh(self):
        """Look again: another tape may be in."""
        try:
            names = [name for name in os.listdir(self.path) if os.path.isfile(os.path.join(self.path, name))]
        except OSError as error:
            raise Failed(f"{self.path}: {error.strerror}") from error
        # With numbers, other files (state.json of a virtual cartridge) are none of the tape's.
        numbered = {int(name): name for name in names if name.isdigit() and name.isascii()}
        ordered = dict(enumerate(sorted(name for name in names if not name.startswith("."))))
        end = self._end()
        found = {number: name for number, name in (numbered or ordered).items() if end is None or number < end}
        self.files = {number: os.path.join(self.path, found[number]) for number in sorted(found)}

    def _end(self):
        """Return how many tape files a virtual cartridge has: there may be rests of a crash behind its end."""
        for name in ("buffered.json", "state.json"):
            try:
                with open(os.path.join(self.path, name), "rb") as file:
                    state = json.load(file)
                return int(state.get("first_file", 0)) + len(state["files"])
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return None

    def numbers(self):
        return list(self.files)

    def open(self, number, _block_bytes=0):
        if number not in self.files:
            raise Damaged("the tape file is not there")
        return FolderFile(self.files[number])


class FolderFile:
    """One tape file, read from front to end with jumps forward or back."""

    def __init__(self, path):
        try:
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by `close`
        except OSError as error:
            raise Damaged(f"{path}: {error.strerror}") from error

    def is_sealed(self):
        """Has a virtual drive encrypted it?"""
        return os.path.exists(self._file.name + ".sealed")

    def seek(self, at):
        self._file.seek(at)

    def read(self, count):
        """Return the next bytes: `count` of them, or fewer at the end."""
        pieces = []
        while count > 0:
            try:
                piece = self._file.read(min(count, 4 * MIB))
            except OSError as error:
                self._file.seek(count, os.SEEK_CUR)
                raise Damaged(f"it cannot be read ({error.strerror})") from error
            if not piece:
                break
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)

    def close(self):
        self._file.close()


# Numbers of <linux/mtio.h>.
MTFSF, MTFSR, MTREW, MTSETBLK = 1, 3, 6, 20
GMT_EOD = 0x08000000
_MTOP = struct.Struct("hi")
_MTGET = struct.Struct("lllllii")
#: Where the direction of an ioctl is encoded the other way round.
_IS_ODD = platform.machine().startswith(("ppc", "mips", "alpha", "sparc"))
MTIOCTOP = (0x80000000 if _IS_ODD else 0x40000000) | _MTOP.size << 16 | ord("m") << 8 | 1
MTIOCGET = (0x40000000 if _IS_ODD else 0x80000000) | _MTGET.size << 16 | ord("m") << 8 | 2


class Tape:
    """A tape in a drive of the kernel's `st` driver. Knows in which tape file it stands, and before which block."""

    def __init__(self, path):
        self.path = path
        self._fd = -1
        self._read_bytes = MIB
        self.refresh()

    def refresh(self):
        """Open the device anew: another tape may be in."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        try:
            self._fd = os.open(self.path, os.O_RDONLY)
            self._do(MTSETBLK, 0)
            self._do(MTREW, 1)
        except OSError as error:
            raise Failed(f"{self.path}: {error.strerror}") from error
        self._file, self._block = 0, 0
        #: Number and first block of the tape file that was looked at last: going back for it would take a minute.
        self.peeked = -1, b""

    def _do(self, operation, count):
        fcntl.ioctl(self._fd, MTIOCTOP, _MTOP.pack(operation, count))

    def _is_at_end(self):
        """Does the drive stand behind the last thing that was written?"""
        return bool(_MTGET.unpack(fcntl.ioctl(self._fd, MTIOCGET, bytes(_MTGET.size)))[3] & GMT_EOD)

    def numbers(self):
        """Yield the numbers of tape files until there is no further one."""
        number = 0
        while True:
            try:
                self.go(number, 0)
                self.peeked = number, self.block()
            except EOFError:
                return
            except Damaged:
                pass
            yield number
            number += 1

    def go(self, file, block):
        """Stand before a block of a tape file. Raises EOFError when there is no such tape file."""
        try:
            if (file, block) < (self._file, self._block) or self._file < 0:
                self._file = -1
                self._do(MTREW, 1)
                self._file, self._block = 0, 0
            if file > self._file:
                here, self._file = self._file, -1
                self._do(MTFSF, file - here)
                self._file, self._block = file, 0
            if block > self._block:
                here, self._file = self._block, -1
                self._do(MTFSR, block - here)
                self._file, self._block = file, block
        except OSError as error:
            if error.errno in (errno.EIO, errno.ENOSPC):
                raise EOFError from error
            raise Failed(f"{self.path}: {error.strerror}") from error

    def block(self):
        """Return the next block; b"" at the end of the tape file. Raises Damaged, and EOFError at the end of data."""
        while True:
            here = self._file, self._block
            try:
                data = os.read(self._fd, self._read_bytes)
            except OSError as error:
                self._file = -1
                if error.errno == errno.ENOMEM and self._read_bytes < BLOCK_BYTES_MAX:
                    # The block is larger than what was asked for, and is passed already.
                    self._read_bytes *= 4
                    self.go(*here)
                    continue
                if here[1] == 0 and self._is_at_end():
                    raise EOFError from error
                raise Damaged(f"block {here[1]} cannot be read ({error.strerror})") from error
            if data:
                self._block += 1
                return data
            if here[1] == 0 and self._is_at_end():
                self._file = -1
                raise EOFError
            self._file, self._block = (-1, 0) if self._is_at_end() else (here[0] + 1, 0)
            return b""

    def open(self, number, block_bytes=0):
        return TapeFile(self, number, block_bytes)


class TapeFile:
    """One tape file, read block by block; places are of its joined blocks, each but the last of which is as long."""

    def __init__(self, tape, number, block_bytes):
        self._tape, self._number = tape, number
        self._block_bytes = block_bytes
        #: The block that comes next, what is left of the one at hand, and whether the end was met.
        self._next, self._rest, self._is_over = 0, b"", False

    def is_sealed(self):
        """Can neither its first nor its second block be read?"""
        for at in (0, self._block_bytes):
            try:
                self.seek(at)
                return False
            except Damaged:
                continue
        return True

    def seek(self, at):
        if not self._block_bytes:
            raise Damaged("the length of its blocks is not known")
        self._next, self._rest, self._is_over = at // self._block_bytes, b"", False
        self._rest = self.read_block()[at % self._block_bytes :]

    def read_block(self):
        if self._is_over:
            return b""
        self._next += 1
        if self._next == 1 and self._tape.peeked[0] == self._number:
            self._is_over = not self._tape.peeked[1]
            return self._tape.peeked[1]
        try:
            self._tape.go(self._number, self._next - 1)
            data = self._tape.block()
        except EOFError:
            data = b""
        self._is_over = not data
        return data

    def read(self, count):
        """Return the next bytes: `count` of them, or fewer at the end. Raises Damaged behind what cannot be read."""
        pieces, problem = [], None
        while count > 0:
            try:
                piece = self._rest or self.read_block()
            except Damaged as error:
                # Go on behind it, for who reads on.
                piece, problem = bytes(self._block_bytes or MIB), error
            if not piece:
                break
            pieces.append(piece[:count])
            self._rest = piece[count:]
            count -= len(pieces[-1])
        if problem is not None:
            raise problem
        return b"".join(pieces)

    def close(self):
        pass


def open_source(path):
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise Failed(f"{path}: {error.strerror}") from error
    if stat.S_ISCHR(mode):
        return Tape(path)
    if stat.S_ISDIR(mode):
        return Folder(path)
    raise Failed(f"{path}: neither a tape drive nor a folder of tape files")


def chunks_of(file, size=MIB):
    """Yield a tape file piece by piece."""
    while True:
        piece = file.read(size)
        if not piece:
            return
        yield piece


# ---- Programs that unpack --------------------------------------------------------------------------------------------


class Pipe:
    """What a program makes of some pieces of bytes, to be read."""

    def __init__(self, command, pieces):
        if shutil.which(command[0]) is None:
            raise Failed(f"the program {command[0]} is needed, and is not there")
        self._pieces = pieces
        self._trouble = None
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._words, bufsize=0
        )
        self._name = command[0]
        self._feeder = threading.Thread(target=self._feed, daemon=True)
        self._feeder.start()

    def _feed(self):
        try:
            for piece in self._pieces:
                view = memoryview(piece)
                while view:
                    view = view[self._process.stdin.write(view) :]
        except BrokenPipeError:
            pass  # It has ended already; its exit code says why.
        except Exception as error:
            self._trouble = error
        finally:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def read(self, count):
        """Return `count` bytes, or fewer at the end, where a failure of the program is raised as Damaged."""
        pieces = []
        while count > 0:
            piece = self._process.stdout.read(min(count, MIB))
            if not piece:
                self.finish()
                break
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)

    def finish(self):
        """The output is at its end: was all well?"""
        self._feeder.join()
        if self._trouble is not None:
            raise self._trouble
        if self._process.wait():
            self._words.seek(0)
            words = shown(self._words.read(500).strip())
            raise Damaged("{} says: {}".format(self._name, words or "damaged"))

    def close(self):
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._feeder.join()
        self._process.stdout.close()
        self._words.close()


def piped(command, stored, limit):
    """Return what a program makes of `stored`, at most `limit` bytes and one."""
    pipe = Pipe(command, [stored])
    try:
        return pipe.read(limit + 1)
    finally:
        pipe.close()


def unpack_gzip(stored, limit):
    try:
        member = zlib.decompressobj(31)
        data = member.decompress(stored, limit + 1)
        if len(data) <= limit and (not member.eof or member.unused_data):
            raise Damaged("a frame is not one gzip member")
        return data
    except zlib.error as error:
        raise Damaged(f"a frame cannot be unpacked: {error}") from error


def unpack_lzma2(stored, limit):
    try:
        import lzma
    except ImportError as error:
        raise Failed("this Python has no module lzma, which is needed for 7z") from error
    try:
        filters = [{"id": lzma.FILTER_LZMA2, "dict_size": max(4096, limit)}]
        data = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters).decompress(stored, limit + 1)
    except lzma.LZMAError as error:
        raise Damaged(f"a frame cannot be unpacked: {error}") from error
    return data


#: How a frame of each codec is unpacked: (stored bytes, how long it may get) -> plain bytes.
UNPACK = {
    "zstd": lambda stored, limit: piped(["zstd", "-dcq"], stored, limit),
    "gzip": unpack_gzip,
    "tar": lambda stored, limit: stored,
    "7z": unpack_lzma2,
}


def decrypted(pieces, identity):
    """Yield what `age` makes of the pieces of an encrypted tape file."""
    with contextlib.closing(Pipe(["age", "-d", "-i", identity], pieces)) as pipe:
        yield from chunks_of(pipe)


def kind_of_age(start):
    """Return what an encrypted tape file says that it is, which everybody may read: `payload`, `trailer`, `index`."""
    found = re.match(re.escape(AGE_MAGIC) + rb"-> tapefs (\w+) (\S+) (\S+)\n", start)
    return found.group(1).decode() if found else ""


def clear(pieces, identity):
    """Yield pieces of a TRAILER or SET INDEX, decrypted if they have to be. Raises Damaged without the key."""
    first = next(pieces, b"")
    both = itertools.chain([first], pieces)
    if not first.startswith(AGE_MAGIC):
        yield from both
    elif not identity:
        raise Damaged(NEEDS_KEY)
    else:
        yield from decrypted(both, identity)


def lines_of(pieces):
    """Yield the lines of a TRAILER or SET INDEX, as bytes, from its stored pieces. Raises Damaged."""
    fed = [0]

    def counted():
        for piece in pieces:
            fed[0] += len(piece)
            yield piece

    pipe = Pipe(["zstd", "-dcq", "--memory=8MB"], counted())
    rest, plain_bytes = b"", 0
    try:
        while True:
            piece = pipe.read(MIB)
            plain_bytes += len(piece)
            if plain_bytes > 64 * MIB + 1000 * fed[0]:
                raise Damaged("it unpacks to far too much")
            *whole, rest = (rest + piece).split(b"\n")
            yield from whole
            if len(rest) > LINE_BYTES_MAX:
                raise Damaged("a line is too long")
            if len(piece) < MIB:
                break
        if rest:
            raise Damaged("its last line is cut short")
    finally:
        pipe.close()


# ---- The small structures --------------------------------------------------------------------------------------------


def parse_json(line):
    try:
        value = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Damaged("a line is no JSON") from error
    if not isinstance(value, dict):
        raise Damaged("a line is no JSON object")
    return value


def parse_structure(block):
    """Return (`LABEL`, `SET LABEL` or `HEADER`, what it says). Raises Damaged."""
    head, _, last = block[:-1].rpartition(b"\n")
    head += b"\n"
    found = re.match(rb"TAPEFS (LABEL|SET LABEL|HEADER) (\d+)\.(\d+)\n", block)
    if not found or not block.endswith(b"\n"):
        raise Damaged("it is no LABEL, SET LABEL or HEADER")
    if last != b"blake2b-128 " + hashlib.blake2b(head, digest_size=16).hexdigest().encode():
        raise Damaged(f"the checksum of a {found.group(1).decode()} is wrong")
    if found.group(2) != b"1":
        raise Failed(f"the tape has version {found.group(2).decode()} of the format; this program knows 1")
    text, _, line = head[:-1].rpartition(b"\n")
    if not text.endswith(b"\n"):
        raise Damaged(f"a {found.group(1).decode()} has no empty line before its JSON")
    said = parse_json(line)
    for key in ("volume", "installation", "segment", "set", "job", "parent_set", "previous_volume"):
        if said.get(key) is not None and not UUID.fullmatch(str(said[key])):
            raise Damaged(f"{key} is no UUID")
    return found.group(1).decode(), said


def kind_of(line):
    """Return what a line says that it is, without reading all of it; b"" if that is not at its beginning."""
    found = re.match(rb'\s*\{\s*"t"\s*:\s*"(\w+)"', line)
    return found.group(1) if found else b""


def number_in(line, key, default=None, least=0, most=2**63 - 1):
    value = line.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < least or (most and value > most):
        raise Damaged(f"{key} is {value!r}")
    return value


def bytes_of(text):
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, TypeError, binascii.Error) as error:
        raise Damaged(f"{text!r} is no base64") from error


def text_in(line, key):
    """Return the value of a key that may be UTF-8 or, under `KEY_b64`, anything."""
    if line.get(key + "_b64") is not None:
        return bytes_of(line[key + "_b64"])
    value = line.get(key, "")
    if not isinstance(value, str):
        raise Damaged(f"{key} is no text")
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Damaged(f"{key} is no text") from error


def checked_name(name):
    """Return a name if it is one plain component: here it is decided that nothing is written elsewhere."""
    if not 1 <= len(name) <= 255 or name in (b".", b"..") or b"/" in name or b"\0" in name:
        raise Damaged(f"{name!r} is no name of a file")
    return name


def xattrs_in(line):
    pairs = [(name.encode("utf-8"), bytes_of(value)) for name, value in line.get("xattrs") or ()]
    return pairs + [(bytes_of(name), bytes_of(value)) for name, value in line.get("xattrs_b64") or ()]


def check_attributes(line):
    """Raise Damaged or ValueError unless what a line says of owner, mode and times can be used."""
    for key in ("mode", "uid", "gid"):
        number_in(line, key, 0)
    # Times may be negative, and of any length.
    number_in(line, "mtime", least=-(2**200), most=2**200)
    xattrs_in(line)


# ---- What is on a tape -----------------------------------------------------------------------------------------------


class Found:
    """One tape file: what it is, and what it says."""

    def __init__(self, number, what, said=None, problem=""):
        self.number, self.what, self.said, self.problem = number, what, said or {}, problem


class Index:
    """A SET INDEX: its first line, the `segment` lines, and whether it is whole."""

    def __init__(self):
        self.head, self.segments, self.with_lines = {}, [], set()

    def read(self, lines):
        """Take its lines. Raises Damaged, also when the first line is not that of an index."""
        for count, line in enumerate(lines):
            kind = kind_of(line)
            if kind == b"index":
                self.head = parse_json(line)
            elif not self.head:
                raise Damaged("it is no SET INDEX")
            elif kind == b"segment":
                self.segments.append(parse_json(line))
            elif kind == b"index_end":
                if number_in(parse_json(line), "lines") != count:
                    raise Damaged("lines are missing")
                return
            elif self.segments:
                self.with_lines.add(self.segments[-1].get("segment"))
        raise Damaged("its last line is missing")


class Kept:
    """TRAILERs and SET INDEXes of tapes that may be changed or are slow to go to, as they lie on tape; on disk."""

    def __init__(self):
        # A name of no length: a file that sqlite removes itself.
        # It is read by the thread that feeds zstd, too; never by two at once.
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.execute("CREATE TABLE kept (tape INTEGER, file INTEGER, number INTEGER, piece BLOB)")
        self._db.execute("CREATE INDEX kept_place ON kept (tape, file, number)")

    def keep(self, tape, file, pieces):
        """Keep a tape file; return its pieces."""
        for number, piece in enumerate(pieces):
            self._db.execute("INSERT INTO kept VALUES (?, ?, ?, ?)", (tape, file, number, piece))
        return self.pieces(tape, file)

    def pieces(self, tape, file):
        """Yield the pieces of a tape file; none: it was not kept."""
        sql = "SELECT piece FROM kept WHERE tape = ? AND file = ? ORDER BY number"
        for (piece,) in self._db.execute(sql, (tape, file)):
            yield piece


def walk(source, identity=None, keep=None):
    """Yield what each tape file is, in order. Nothing raises but Failed. `identity` is the file with the key.

    `keep` takes the number of a tape file that is a TRAILER or SET INDEX, and its pieces.
    """
    due, last, by_drive = "", -1, False
    for number in source.numbers():
        if number != last + 1:
            # Tape files are missing in a dump.
            due = ""
        last = number
        file = source.open(number)
        try:
            found = look(file, number, due, identity, keep)
        except Damaged as error:
            found = Found(number, due or "unreadable", problem=str(error))
        finally:
            file.close()
        due = {"HEADER": "PAYLOAD", "PAYLOAD": "TRAILER"}.get(found.what, "")
        by_drive = by_drive or found.said.get("encryption") == "drive"
        if by_drive and found.problem and found.what not in ("LABEL", "SET LABEL", "HEADER"):
            found.problem += "; " + NEEDS_DRIVE_KEY
        yield found


def look(file, number, due, identity, keep):
    """Return what a tape file is. `due` says what should follow on the one before."""
    start = file.read(4096)
    if not start:
        return Found(number, "empty")
    if start.startswith(b"TAPEFS "):
        block = start + file.read(BLOCK_BYTES_MAX) if len(start) == 4096 else start
        try:
            what, said = parse_structure(block)
            return Found(number, what, said)
        except Damaged as error:
            if due != "PAYLOAD":
                names = [name for name in ("SET LABEL", "LABEL", "HEADER") if block[7:].startswith(name.encode())]
                return Found(number, names[0] if names else "unknown", problem=str(error))
    if due == "PAYLOAD":
        return Found(number, "PAYLOAD")
    if not start.startswith((ZSTD_MAGIC, AGE_MAGIC)):
        return Found(number, due or "unknown", problem="it begins with something unknown")
    pieces = itertools.chain([start], chunks_of(file))
    pieces = pieces if keep is None else keep(number, pieces)
    if start.startswith(AGE_MAGIC) and not identity:
        kinds = {"index": "SET INDEX", "trailer": "TRAILER"}
        return Found(number, kinds.get(kind_of_age(start), due or "unknown"), {"encrypted": True})
    found = look_at_lines(clear(pieces, identity), number, due)
    if start.startswith(AGE_MAGIC):
        # All on a tape is encrypted, or nothing: so are the payloads that a SET INDEX tells of.
        found.said["encryption"] = "age"
    return found


def look_at_lines(pieces, number, due):
    """Return what a tape file of lines is. `due`: a TRAILER, if it is no SET INDEX."""
    index = Index()
    try:
        with contextlib.closing(pieces), contextlib.closing(lines_of(pieces)) as lines:
            index.read(lines)
    except Damaged as error:
        if not index.head:
            return Found(number, "TRAILER", problem="" if due else "its HEADER is missing")
        return Found(number, "SET INDEX", index.head, str(error))
    return Found(number, "SET INDEX", dict(index.head, index=index))


class Volume:
    """A tape, and where it was seen."""

    def __init__(self, source, number=0):
        #: Where the tape is now, or None; and a number of its own among all that were looked at.
        self.source, self.number = source, number
        self.ident, self.label, self.problems = "", "", []
        self.files = []

    def scan(self, identity, keep=None):
        for found in walk(self.source, identity, keep):
            self.files.append(found)
            if found.what in ("LABEL", "SET LABEL", "HEADER") and not found.problem:
                self.ident = self.ident or str(found.said.get("volume", ""))
                if found.what == "LABEL":
                    self.label = str(found.said.get("label", ""))
        if not self.ident:
            self.ident = "unlabelled:" + self.source.path
        return self

    def title(self):
        return shown(self.label or self.ident)


class Copy:
    """Where the payload of a segment lies, and what has to be known to read it."""

    def __init__(self, volume, file, said):
        self.volume, self.file = volume, file
        self.codec = said.get("codec", "")
        self.encryption = said.get("encryption") or ""
        self.block_bytes = said.get("block_size") or 0


class Segment:
    def __init__(self, ident, set_ident, number):
        self.ident, self.set, self.number = ident, set_ident, number
        #: Copies of the payload; (volume, tape file) of TRAILERs; the same of SET INDEXes that hold the lines.
        self.copies, self.trailers, self.indexes = [], [], []
        #: Labels of the tapes that have it, as SET INDEXes say; by volume.
        self.tapes = {}


class Set:
    def __init__(self, ident, said):
        self.ident, self.said = ident, said
        self.base = None
        self.is_final = False
        self.segments = {}

    def missing(self):
        """Return the numbers of its segments that are known of, but were not seen."""
        count = max(self.segments, default=-1) + 1
        return [n for n in range(count) if n not in self.segments or not self.segments[n].copies]


class Shelf:
    """All tapes that were seen, and the sets on them."""

    def __init__(self, args, report, ask, paths=None):
        self.report, self._ask, self.identity = report, ask, args.identity
        self.sources = [open_source(path) for path in paths or args.source]
        self.volumes, self.sets, self.segments = {}, {}, {}
        self._kept, self._looked = Kept(), 0
        for source in self.sources:
            self.add(source)

    def add(self, source):
        """Take in the tape that is in a source now."""
        self._looked += 1
        volume = Volume(source, self._looked)
        if self._ask or isinstance(source, Tape):
            # It may be taken out before its lines are needed; and going there costs a minute.
            volume.scan(self.identity, lambda number, pieces: self._kept.keep(volume.number, number, pieces))
        else:
            volume.scan(self.identity)
        known = self.volumes.get(volume.ident)
        if known is not None:
            known.source = source
            return known
        self.volumes[volume.ident] = volume
        for at, found in enumerate(volume.files):
            if found.what == "HEADER" and not found.problem:
                behind = volume.files[at + 1 : at + 3]
                self._add_header(volume, found, [other for other in behind if other.number <= found.number + 2])
            elif found.what == "SET INDEX" and "index" in found.said:
                self._add_index(volume, found)
        return volume

    def _set(self, said):
        ident = str(said.get("set"))
        if ident not in self.sets:
            self.sets[ident] = Set(ident, said)
        return self.sets[ident]

    def _segment(self, of_set, said):
        ident, number = str(said.get("segment")), said.get("number")
        if not UUID.fullmatch(ident) or not isinstance(number, int) or not 0 <= number < 2**31:
            raise Damaged(f"it names a segment {ident!r} with the number {number!r}")
        segment = self.segments.setdefault(ident, Segment(ident, of_set.ident, number))
        of_set.segments.setdefault(number, segment)
        return segment

    def _add_header(self, volume, found, behind):
        of_set = self._set(found.said)
        of_set.base = of_set.base or found.said.get("parent_set")
        try:
            segment = self._segment(of_set, found.said)
        except Damaged as error:
            self.report.bad(f"{volume.title()}, tape file {found.number}: {error}")
            return
        if len(behind) < 2 or behind[0].what != "PAYLOAD" or behind[1].what != "TRAILER":
            # Its writing was interrupted. If only the TRAILER is lost, a SET INDEX has a line about it.
            return
        self._add_copy(segment, Copy(volume, behind[0].number, found.said))
        segment.trailers.append((volume, behind[1].number))

    def _add_copy(self, segment, copy):
        if not any((other.volume, other.file) == (copy.volume, copy.file) for other in segment.copies):
            segment.copies.append(copy)
        self._count(segment)

    def _count(self, segment):
        """Of two segments of one number, count that of a SET INDEX; else one that is not torn; else the first.

        A run that left a tape in the middle of a segment has written it again, on another.
        """
        numbered = self.sets[segment.set].segments
        now = numbered[segment.number]
        if (bool(segment.tapes), bool(segment.copies)) > (bool(now.tapes), bool(now.copies)):
            numbered[segment.number] = segment

    def _add_index(self, volume, found):
        index, of_set = found.said["index"], self._set(found.said)
        of_set.base = of_set.base or found.said.get("base_set")
        of_set.is_final = of_set.is_final or bool(found.said.get("final"))
        for line in index.segments:
            try:
                segment = self._segment(of_set, line)
            except Damaged as error:
                self.report.bad(f"{volume.title()}, tape file {found.number}: {error}")
                continue
            segment.tapes[str(line.get("volume"))] = str(line.get("label", ""))
            self._count(segment)
            if segment.ident in index.with_lines:
                segment.indexes.append((volume, found.number))
            if line.get("volume") == volume.ident and isinstance(line.get("header_file"), int):
                self._add_copy(segment, Copy(volume, line["header_file"] + 1, dict(found.said, **line)))

    # -- finding -------------------------------------------------------------------------------------------------------

    def find(self, wish):
        """Return the set that a user means."""
        found = [one for one in self.sets.values() if one.ident.startswith(wish.lower())]
        found = found or [one for one in self.sets.values() if str(one.said.get("set_number")) == wish]
        if len(found) != 1:
            what = "no set" if not found else "more than one set"
            raise Failed(f"there is {what} {wish!r}; `untape.py sets` shows all")
        return found[0]

    def chain(self, last):
        """Return the sets that are needed for one, oldest first, and the id of the one that is missing, or None."""
        found = [last]
        while found[-1].base is not None:
            base = self.sets.get(found[-1].base)
            if base is None:
                return found[::-1], found[-1].base
            if base in found:
                raise Failed("the sets build on each other in a circle")
            found.append(base)
        return found[::-1], None

    def complete(self, last):
        """Ask for tapes until everything is there that a set needs, or the user says no. Return its chain."""
        while True:
            chain, base = self.chain(last)
            wanted = []
            for one in chain:
                for number in one.missing():
                    tapes = one.segments[number].tapes.values() if number in one.segments else ()
                    labels = " or ".join(sorted(map(shown, tapes))) or "not known"
                    wanted.append(f"segment {number} of set {one.ident} (tape: {labels})")
                if not one.is_final:
                    wanted.append(f"the end of set {one.ident} (on the tape behind those that you gave)")
            if base is not None:
                wanted.append(f"set {base}, on which it builds")
            if not wanted:
                return chain
            if not self._ask:
                break
            tell("Not here yet:\n  " + "\n  ".join(wanted))
            if not self._take("a tape that has it"):
                break
        for each in wanted:
            self.report.bad("missing: " + each)
        return chain

    def _take(self, what):
        """Have the user put a tape in; return it, or None if there is none."""
        source = next((s for s in self.sources if isinstance(s, Tape)), self.sources[0])
        tell(f"Put {what} into {source.path} and press Enter, or type n and Enter to do without: ")
        answer = sys.stdin.readline()
        if not answer or answer.strip().lower().startswith("n"):
            return None
        for volume in self.volumes.values():
            if volume.source is source:
                volume.source = None
        source.refresh()
        volume = self.add(source)
        tell(f"This is {volume.title()}.")
        return volume

    def source_of(self, volume):
        """Return the source that has a tape; asks for it if another one is in. Raises Damaged without it."""
        while volume.source is None:
            if not self._ask or self._take("tape " + volume.title()) is None:
                raise Damaged(f"tape {volume.title()} is not here")
        return volume.source

    def pieces(self, volume, number):
        """Yield the pieces of a TRAILER or SET INDEX."""
        kept = self._kept.pieces(volume.number, number)
        first = next(kept, None)
        if first is not None:
            yield first
            yield from kept
            return
        file = self.source_of(volume).open(number)
        try:
            yield from chunks_of(file)
        finally:
            file.close()

    def is_here(self, volume):
        return volume.source is not None


# ---- The tree of a set -----------------------------------------------------------------------------------------------

SCHEMA = """
CREATE TABLE dirs (n INTEGER PRIMARY KEY, parent INTEGER, name BLOB, line TEXT, born INTEGER);
CREATE INDEX dirs_parent ON dirs (parent, name);
-- born: which set of the chain; grp: the same for all names of one file; pieces: JSON, where its content is.
CREATE TABLE files (id INTEGER PRIMARY KEY, d INTEGER, name BLOB, born INTEGER, grp INTEGER, dev TEXT, ino TEXT,
                    line TEXT, pieces TEXT, UNIQUE (d, name));
CREATE INDEX files_inode ON files (ino, dev) WHERE ino IS NOT NULL;
CREATE INDEX files_grp ON files (grp);
CREATE TABLE frames (segment TEXT, plain_at INTEGER, at INTEGER, stored INTEGER, plain INTEGER);
CREATE INDEX frames_segment ON frames (segment, plain_at);
CREATE TABLE elsewhere (d INTEGER, name BLOB, segment TEXT);
CREATE TABLE ends (segment TEXT PRIMARY KEY, line TEXT);
CREATE TABLE kept (n INTEGER PRIMARY KEY);
CREATE TABLE chosen (rank INTEGER PRIMARY KEY, n INTEGER UNIQUE, made INTEGER);
CREATE TABLE picked (grp INTEGER, id INTEGER PRIMARY KEY);
CREATE INDEX picked_grp ON picked (grp);
CREATE TABLE todo (grp INTEGER, segment TEXT, at INTEGER, sha TEXT, runs TEXT, tried INTEGER);
CREATE INDEX todo_place ON todo (segment, tried, at);
CREATE INDEX todo_grp ON todo (grp);
"""


class Tree:
    """The directories and names of a set, from the TRAILERs of its chain; in a database that goes with the program."""

    def __init__(self):
        # A name of no length: a file on disk that sqlite removes itself.
        self.db = sqlite3.connect("", isolation_level=None)
        self.db.executescript("PRAGMA journal_mode=MEMORY; PRAGMA synchronous=OFF;" + SCHEMA)
        self._born = -1
        self._segment = ""
        self._plain_at = self._members = self._frames = 0
        self._end = None

    def begin_set(self):
        """All that comes now is of the next set of the chain."""
        self._born += 1

    def take_segment(self, segment, lines):
        """Take the lines of a TRAILER, all or none. Raises Damaged."""
        self._segment, self._end = segment.ident, None
        self._plain_at = self._members = self._frames = 0
        self.db.execute("SAVEPOINT segment")
        try:
            for line in lines:
                self._take(parse_json(line))
            self._check_end(segment)
            self.db.execute("RELEASE segment")
        except (TypeError, ValueError, KeyError, OverflowError, sqlite3.Error) as error:
            self._undo()
            raise Damaged(f"a line is not as the format wants it ({error})") from error
        except BaseException:
            self._undo()
            raise

    def _undo(self):
        self.db.execute("ROLLBACK TO segment")
        self.db.execute("RELEASE segment")

    def _check_end(self, segment):
        end = self._end
        if end is None:
            raise Damaged("its last line is missing")
        if end.get("segment") != segment.ident or end.get("number") != segment.number:
            raise Damaged("it is of another segment")
        if (end.get("members"), end.get("frames")) != (self._members, self._frames):
            raise Damaged("lines are missing")
        if number_in(end, "plain_bytes") != self._plain_at:
            raise Damaged("its frames do not add up")

    def _take(self, line):
        if self._end is not None:
            raise Damaged("there are lines behind the last one")
        kind = line.get("t")
        if kind == "m":
            self._take_member(line)
        elif kind == "d":
            self._take_directory(line)
        elif kind in ("e", "l"):
            self._take_listing(line)
        elif kind == "b":
            self._take_frame(line)
        elif kind == "end":
            self._end = line
            self.db.execute("INSERT OR REPLACE INTO ends VALUES (?, ?)", (self._segment, json.dumps(line)))
        # Other kinds: of a later minor version.

    def _take_frame(self, line):
        at, stored = number_in(line, "at"), number_in(line, "stored", least=1)
        plain = number_in(line, "plain", least=1, most=FRAME_BYTES_MAX)
        if stored > 2 * FRAME_BYTES_MAX:
            raise Damaged("a frame is too long")
        self.db.execute("INSERT INTO frames VALUES (?, ?, ?, ?, ?)", (self._segment, self._plain_at, at, stored, plain))
        self._plain_at += plain
        self._frames += 1

    def _take_directory(self, line):
        n, parent = number_in(line, "n"), number_in(line, "p")
        name = b"" if n == 0 else checked_name(text_in(line, "name"))
        check_attributes(line)
        if not stat.S_ISDIR(line["mode"]):
            raise Damaged("a directory is none")
        known = self.db.execute("SELECT born FROM dirs WHERE n = ?", (n,)).fetchone()
        if line.get("again") and known is not None and known[0] == self._born:
            return
        if known is not None and known[0] < self._born and line.get("base", -1) < 0 and n != 0:
            # The number of a directory that is gone.
            self.db.execute("DELETE FROM files WHERE d = ?", (n,))
            self.db.execute("DELETE FROM dirs WHERE parent = ? AND born < ?", (n, self._born))
        row = (n, None if n == 0 else parent, name, json.dumps(line), self._born)
        self.db.execute("INSERT OR REPLACE INTO dirs VALUES (?, ?, ?, ?, ?)", row)

    def _take_listing(self, line):
        n = number_in(line, "n")
        gone = [name.encode("utf-8") for name in line.get("removed") or ()]
        gone += [bytes_of(name) for name in line.get("removed_b64") or ()]
        rows = [(n, name, self._born) for name in gone]
        self.db.executemany("DELETE FROM files WHERE d = ? AND name = ? AND born < ?", rows)
        for other in line.get("elsewhere") or ():
            row = (n, checked_name(text_in(other, "name")), str(other["segment"]))
            self.db.execute("INSERT INTO elsewhere VALUES (?, ?, ?)", row)
        self.db.executemany("INSERT OR IGNORE INTO kept VALUES (?)", ((int(d),) for d in line.get("directories") or ()))
        if line["t"] == "l":
            self.db.execute("DELETE FROM dirs WHERE parent = ? AND n NOT IN (SELECT n FROM kept)", (n,))
            self.db.execute("DELETE FROM kept")

    def _take_member(self, line):
        self._members += 1
        d, name, mode = number_in(line, "d"), checked_name(text_in(line, "name")), number_in(line, "mode")
        check_attributes(line)
        flags, part = number_in(line, "flags", 0), number_in(line, "part", -1, least=-1)
        number_in(line, "size")
        old = self.db.execute("SELECT id, grp, born, line, pieces FROM files WHERE d = ? AND name = ?", (d, name))
        old = old.fetchone()
        pieces = self._pieces_of(line, mode, flags, part, old)
        if part > 0 and old is not None and old[2] == self._born:
            pieces = json.dumps(json.loads(old[4]) + pieces)
            # The parts of a stream before its last one do not know how long it is.
            said = json.dumps(line) if json.loads(old[3]).get("more") else old[3]
            self.db.execute("UPDATE files SET line = ?, pieces = ? WHERE id = ?", (said, pieces, old[0]))
            return
        dev = ino = grp = None
        if number_in(line, "nlink", 1) > 1:
            dev, ino = str(line.get("dev")), str(line.get("ino"))
            grp = self._group_of(line, flags, dev, ino)
        if old is not None:
            self.db.execute("DELETE FROM files WHERE id = ?", (old[0],))
        row = (d, name, self._born, grp, dev, ino, json.dumps(line), json.dumps(pieces))
        sql = "INSERT INTO files (d, name, born, grp, dev, ino, line, pieces) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        new = self.db.execute(sql, row).lastrowid
        if grp is None:
            self.db.execute("UPDATE files SET grp = ? WHERE id = ?", (new, new))

    def _pieces_of(self, line, mode, flags, part, old):
        """Return where the content of a line lies: a list of [segment, at, SHA-256, runs, place of part, length]."""
        if flags & UNREADABLE or not stat.S_ISREG(mode):
            return []
        if line.get("as_base"):
            return json.loads(old[4]) if old is not None else []
        at, sha = number_in(line, "at", 0), line.get("sha256") or ""
        if flags & LINKED and not flags & CHANGED and not sha:
            return self._pieces_at(line, at)
        start, length = number_in(line, "part_offset", 0), number_in(line, "part_bytes", 0)
        if part < 0:
            start, length = 0, line["size"]
        if start + length > line["size"]:
            raise Damaged("a part reaches beyond its file")
        runs, end = [[start, length]] if length else [], start
        if flags & SPARSE:
            runs = line.get("data") or []
            for place, count in runs:
                if not (isinstance(place, int) and isinstance(count, int) and place >= end and count > 0):
                    raise Damaged("the data of a file with holes does not ascend")
                end = place + count
            if end > start + length:
                raise Damaged("the data of a file with holes reaches beyond it")
        return [[self._segment, at, sha, runs, start, length]]

    def _pieces_at(self, line, at):
        """Return the pieces of the name of a file whose content this line refers to."""
        key = (str(line.get("ino")), str(line.get("dev")), self._born)
        sql = "SELECT pieces FROM files WHERE ino = ? AND dev = ? AND born = ? ORDER BY id DESC"
        for (text,) in self.db.execute(sql, key):
            pieces = json.loads(text)
            if pieces and pieces[-1][0] == self._segment and pieces[0][1] == at:
                return pieces
        return []

    def _group_of(self, line, flags, dev, ino):
        """Return the group of the file of which this line is a further name; None: of none that is known."""
        if flags & (CHANGED | UNREADABLE):
            return None
        if flags & LINKED:
            sql = "SELECT grp, line FROM files WHERE ino = ? AND dev = ? AND born = ? ORDER BY id DESC"
            for grp, text in self.db.execute(sql, (ino, dev, self._born)):
                if not json.loads(text).get("flags", 0) & (CHANGED | UNREADABLE):
                    return grp
            return None
        sql = "SELECT grp, line FROM files WHERE ino = ? AND dev = ? AND born < ? ORDER BY id"
        for grp, text in self.db.execute(sql, (ino, dev, self._born)):
            if is_same_file(json.loads(text), line):
                return grp
        return None

    def end_set(self):
        """Drop what is below directories that are gone: their numbers may come again."""
        self.db.execute(
            "DELETE FROM dirs WHERE n NOT IN (WITH RECURSIVE live(n) AS (SELECT 0 UNION"
            " SELECT dirs.n FROM dirs JOIN live ON dirs.parent = live.n) SELECT n FROM live)"
        )
        self.db.execute("DELETE FROM files WHERE d NOT IN (SELECT n FROM dirs)")

    def path_of(self, d, name=b""):
        """Return the path of a directory that is in the tree, or of a name in it."""
        names = [name] if name else []
        while d:
            d, above = self.db.execute("SELECT parent, name FROM dirs WHERE n = ?", (d,)).fetchone()
            names.append(above)
        return b"/" + b"/".join(reversed(names))

    def walk(self, wishes):
        """Yield (number, path, line, is it wanted as a whole) of directories, each before what is below it."""
        waiting = [0]
        while waiting:
            n = waiting.pop()
            row = self.db.execute("SELECT line FROM dirs WHERE n = ?", (n,)).fetchone()
            if row is None:
                continue
            path = self.path_of(n)
            is_whole = not wishes or any(is_below(path, wish) for wish in wishes)
            if not is_whole and not any(is_below(wish, path) for wish in wishes):
                continue
            yield n, path, json.loads(row[0]), is_whole
            below = self.db.execute("SELECT n FROM dirs WHERE parent = ? ORDER BY name DESC", (n,)).fetchall()
            waiting.extend(child for (child,) in below)


def is_below(path, above):
    """Is a path another one, or below it?"""
    return path == above or above == b"/" or path.startswith(above + b"/")


def is_same_file(old, new):
    """Is a name of an older set the same file as one of this set? All that stat(2) tells but the blocks is the same."""
    keys = ("mode", "uid", "gid", "size", "mtime", "ctime", "nlink", "dev", "ino")
    if any(old.get(key) != new.get(key) for key in keys) or old.get("rdev", 0) != new.get("rdev", 0):
        return False
    if old.get("flags", 0) & (CHANGED | UNREADABLE) or text_in(old, "target") != text_in(new, "target"):
        return False
    return not old.get("flags", 0) & FRESH or old.get("sha256") == new.get("sha256")


def trailer_lines(shelf, volume, number, segment, is_index):
    """Yield the lines about a segment from a TRAILER, or from a SET INDEX that has them."""
    is_in = not is_index
    with contextlib.ExitStack() as stack:
        stored = stack.enter_context(contextlib.closing(shelf.pieces(volume, number)))
        pieces = stack.enter_context(contextlib.closing(clear(stored, shelf.identity)))
        for line in stack.enter_context(contextlib.closing(lines_of(pieces))):
            if is_index and kind_of(line) in (b"index", b"segment", b"index_end"):
                is_in = kind_of(line) == b"segment" and parse_json(line).get("segment") == segment.ident
            elif is_in:
                yield line


def load_segment(shelf, tree, segment):
    """Take the lines of a segment, wherever they can be read. Return whether that went well."""
    places = [(volume, number, False) for volume, number in segment.trailers]
    places += [(volume, number, True) for volume, number in segment.indexes]
    places.sort(key=lambda place: not shelf.is_here(place[0]))
    for volume, number, is_index in places:
        try:
            tree.take_segment(segment, trailer_lines(shelf, volume, number, segment, is_index))
            return True
        except Damaged as error:
            what = "SET INDEX" if is_index else "TRAILER"
            shelf.report.bad(f"{volume.title()}, tape file {number}: {what} cannot be read: {error}")
    return False


def load(shelf, last):
    """Return the tree of a set, and the ids of the segments of which nothing is known."""
    tree, unknown = Tree(), set()
    for one in shelf.complete(last):
        tree.begin_set()
        for number in sorted(one.segments):
            segment = one.segments[number]
            if not load_segment(shelf, tree, segment):
                unknown.add(segment.ident)
                if segment.trailers or segment.indexes or segment.copies:
                    text = "segment {} of set {}: no TRAILER or SET INDEX tells what is in it; see `untape.py list`"
                    if any(copy.encryption == "drive" for copy in segment.copies):
                        text += "; " + NEEDS_DRIVE_KEY
                    shelf.report.bad(text.format(number, one.ident))
        tree.end_set()
    return tree, unknown


# ---- Reading content -------------------------------------------------------------------------------------------------


class Decrypted:
    """A payload as `age` gives it: from front to end only."""

    def __init__(self, file, identity):
        self._file, self._identity = file, identity
        self._pipe, self._at = None, 0
        self.seek(0)

    def seek(self, at):
        if self._pipe is None or at < self._at:
            self.close_pipe()
            self._file.seek(0)
            self._pipe = Pipe(["age", "-d", "-i", self._identity], chunks_of(self._file))
            self._at = 0
        while self._at < at and self.read(min(at - self._at, MIB)):
            pass

    def read(self, count):
        data = self._pipe.read(count)
        self._at += len(data)
        return data

    def close_pipe(self):
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None

    def close(self):
        self.close_pipe()
        self._file.close()


def open_payload(shelf, copy):
    """Open the payload of a copy, decrypted. Raises Damaged when that cannot be."""
    if copy.codec not in UNPACK:
        raise Damaged(f"it has the codec {copy.codec!r}, which this program does not know")
    if copy.encryption not in ("", "age", "drive"):
        raise Damaged(f"it has the encryption {copy.encryption!r}, which this program does not know")
    if copy.encryption == "age" and not shelf.identity:
        raise Damaged(NEEDS_KEY)
    file = shelf.source_of(copy.volume).open(copy.file, copy.block_bytes)
    if copy.encryption == "drive":
        # With the key in the drive, or dumped with it, it is like any other.
        if file.is_sealed():
            file.close()
            raise Damaged(NEEDS_DRIVE_KEY)
        file.seek(0)
    return Decrypted(file, shelf.identity) if copy.encryption == "age" else file


class Plain:
    """The plain stream of one copy of a segment: unpacks the frame that is asked for, and keeps the last one."""

    def __init__(self, tree, segment, file, codec):
        sql = "SELECT plain_at, at, stored, plain FROM frames WHERE segment = ? ORDER BY plain_at"
        rows = tree.db.execute(sql, (segment.ident,)).fetchall()
        self._columns = [array.array("q", column) for column in zip(*rows)] or [array.array("q")] * 4
        self._file, self._unpack = file, UNPACK[codec]
        self._now, self._content, self._problem = -1, b"", None
        #: Where the file stands; -1: not known.
        self._at = 0

    def count(self):
        return len(self._columns[0])

    def pieces(self, at, count):
        """Yield the bytes from a place on. Raises Damaged."""
        while count > 0:
            number = bisect.bisect_right(self._columns[0], at) - 1
            if number < 0:
                raise Damaged("its content is in no frame")
            content = self.frame(number)
            start = at - self._columns[0][number]
            piece = content[start : start + count]
            if not piece:
                raise Damaged("its content is in no frame")
            yield piece
            at += len(piece)
            count -= len(piece)

    def frame(self, number):
        """Return a frame, unpacked. Raises Damaged."""
        if number != self._now:
            self._now, self._content, self._problem = number, b"", None
            try:
                self._content = self._read(number)
            except Damaged as error:
                self._problem = error
        if self._problem is not None:
            raise Damaged(f"frame {number} is damaged: {self._problem}")
        return self._content

    def _read(self, number):
        at, stored, plain = (column[number] for column in self._columns[1:])
        if self._at != at:
            self._at = -1
            self._file.seek(at)
        self._at = -1
        data = self._file.read(stored)
        self._at = at + stored
        if len(data) != stored:
            raise Damaged("the tape file ends before it")
        content = self._unpack(data, plain)
        if len(content) != plain:
            raise Damaged("it has not the length that its line says")
        return content


# ---- Writing, beneath the target -------------------------------------------------------------------------------------

ACLS = (b"system.posix_acl_access", b"system.posix_acl_default")
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Target:
    """The folder into which everything goes. Each name is opened relative to the directory above, and no link is
    followed, so neither a name from the tape nor a link that somebody plants leads outside.
    """

    def __init__(self, path, tree):
        self._tree = tree
        os.makedirs(path, exist_ok=True)
        #: Directories that are open, by number; the target is 0.
        self._open = {0: os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)}

    def directory(self, n):
        """Return a descriptor of a directory of the tree, good until many others were asked for. Raises OSError."""
        names, here = [], n
        while here not in self._open:
            here, name = self._tree.db.execute("SELECT parent, name FROM dirs WHERE n = ?", (here,)).fetchone()
            names.append(bytes(name))
        first = fd = self._open[here]
        for name in reversed(names):
            above = fd
            try:
                fd = os.open(name, DIRECTORY, dir_fd=above)
            finally:
                if above != first:
                    os.close(above)
        # Those that were asked for last are at the end.
        self._open.pop(n, None)
        self._open[n] = fd
        while len(self._open) > 64:
            oldest = next(other for other in self._open if other != 0)
            os.close(self._open.pop(oldest))
        return fd

    def make_directory(self, n, parent, name):
        """Make a directory, or use the one that is there. Return whether it was made. Raises OSError."""
        try:
            os.mkdir(name, 0o700, dir_fd=self.directory(parent))
            return True
        except FileExistsError:
            self.directory(n)
            return False


class Giver:
    """Gives what was made its owner, mode, attributes and time, in the order in which the kernel keeps them."""

    def __init__(self, report, special):
        self._report, self._special = report, special
        self._is_root = os.geteuid() == 0

    def give(self, fd, line, path):
        """Set all that a line says on what `fd` refers to. Raises OSError when the time or mode cannot be set."""
        where = f"/proc/self/fd/{fd}"
        mode, is_link = stat.S_IMODE(line["mode"]), stat.S_ISLNK(line["mode"])
        is_owned = self._own(where, line, path)
        attributes = [pair for pair in xattrs_in(line) if self._is_wanted(pair[0], path)]
        late = [pair for pair in attributes if pair[0] in ACLS or pair[0].startswith(b"security.")]
        self._clear_acls(where)
        for name, value in attributes:
            if (name, value) not in late:
                self._set(where, name, value, path)
        if not is_link:
            mode = self._without_set_id(mode, line, path, is_owned)
            os.chmod(where, mode)
        for name, value in late:
            if not self._set(where, name, value, path) and name == ACLS[0]:
                # Without its ACL the group would get what the mask allows to all that the ACL names.
                os.chmod(where, mode & ~0o070)
        os.utime(where, ns=(line["mtime"], line["mtime"]))

    def _own(self, where, line, path):
        uid, gid = line.get("uid", 0), line.get("gid", 0)
        try:
            os.chown(where, uid, gid)
            return True
        except (OSError, OverflowError):
            self._report.count("owners were not set" + ("" if self._is_root else " (only root can)"), path)
            return False

    def _without_set_id(self, mode, line, path, is_owned):
        if mode & 0o6000 and not stat.S_ISDIR(line["mode"]) and not (self._special and is_owned):
            why = "need --special" if is_owned or not self._special else "need their owner"
            self._report.count("set-id bits were left off; they " + why, path)
            return mode & ~0o6000
        return mode

    def _is_wanted(self, name, path):
        if name.startswith(b"security.") and not self._special:
            self._report.count("capabilities and labels (security.*) were left off; they need --special", path)
            return False
        return True

    def _clear_acls(self, where):
        """Take away what was inherited from the directory."""
        try:
            for name in os.listxattr(where):
                if name.encode("utf-8", "surrogateescape") in ACLS:
                    os.removexattr(where, name)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.ENODATA, errno.EPERM):
                raise

    def _set(self, where, name, value, path):
        try:
            os.setxattr(where, name, value)
            return True
        except (OSError, ValueError) as error:
            kind = shown(name.split(b".")[0])
            self._report.count(f"attributes {kind}.* were not set ({error})", path)
            self._report.is_bad = True
            return False


class Restorer:
    """Brings the chosen part of a tree back."""

    def __init__(self, shelf, tree, args):
        self._shelf, self._tree, self._db, self._report = shelf, tree, tree.db, shelf.report
        self._target = Target(args.to[0], tree)
        self._special = args.special
        self._giver = Giver(shelf.report, args.special)
        self.restored = 0
        #: The file that was asked for last, and its names: it is asked for many times in a row.
        self._last = None, []

    def run(self, wishes, unknown):
        self._choose(wishes)
        self._tell_unknown(unknown)
        self._make_directories()
        self._begin_contents()
        self._fetch_contents()
        self._make_others()
        self._finish_directories()

    # -- choosing ------------------------------------------------------------------------------------------------------

    def _choose(self, wishes):
        left = set(wishes)
        for n, path, _line, is_whole in self._tree.walk(wishes):
            self._db.execute("INSERT INTO chosen (n, made) VALUES (?, 0)", (n,))
            left.discard(path)
            if is_whole:
                self._db.execute("INSERT INTO picked SELECT grp, id FROM files WHERE d = ?", (n,))
                continue
            for wish in wishes:
                above, _, name = wish.rpartition(b"/")
                if (above or b"/") == path:
                    sql = "INSERT OR IGNORE INTO picked SELECT grp, id FROM files WHERE d = ? AND name = ?"
                    if self._db.execute(sql, (n, name)).rowcount > 0:
                        left.discard(wish)
        for wish in sorted(left):
            self._report.bad(f"{shown(wish)}: there is nothing of that name in the set")

    def _tell_unknown(self, unknown):
        """Name what is known to be in segments that nothing else is known of."""
        sql = "SELECT d, name, segment FROM elsewhere JOIN chosen ON chosen.n = d"
        for d, name, segment in self._db.execute(sql + " ORDER BY d, name").fetchall():
            known = self._db.execute("SELECT 1 FROM files WHERE d = ? AND name = ?", (d, name)).fetchone()
            if known is None and (segment in unknown or segment not in self._shelf.segments):
                self._lost(d, name, "it is in a segment that is missing")

    def _lost(self, d, name, why):
        self._report.bad(f"lost: {shown(self._tree.path_of(d, bytes(name)))}: {why}")

    # -- directories ---------------------------------------------------------------------------------------------------

    def _make_directories(self):
        sql = "SELECT rank, n, parent, name FROM chosen JOIN dirs USING (n) WHERE n <> 0 ORDER BY rank"
        for rank, n, parent, name in self._db.execute(sql).fetchall():
            try:
                if self._target.make_directory(n, parent, bytes(name)):
                    self._db.execute("UPDATE chosen SET made = 1 WHERE rank = ?", (rank,))
            except OSError as error:
                self._lost(n, b"", f"the directory cannot be made: {error.strerror}")

    def _finish_directories(self):
        """Give directories their attributes, the deepest first; those that were there before keep theirs."""
        sql = "SELECT n, line FROM chosen JOIN dirs USING (n) WHERE made = 1 ORDER BY rank DESC"
        for n, line in self._db.execute(sql).fetchall():
            path = self._tree.path_of(n)
            try:
                self._giver.give(self._target.directory(n), json.loads(line), path)
            except (OSError, OverflowError, Damaged) as error:
                self._report.bad(f"{shown(path)}: not all of it could be set: {error}")

    # -- regular files -------------------------------------------------------------------------------------------------

    def _candidates(self, grp):
        """Yield the lists of pieces that hold the whole content of a file: those of all its names."""
        seen = []
        for line, text in self._db.execute("SELECT line, pieces FROM files WHERE grp = ? ORDER BY id", (grp,)):
            pieces, said = json.loads(text), json.loads(line)
            if pieces not in seen and not said.get("more") and is_whole_file(pieces, said["size"]):
                seen.append(pieces)
                yield pieces

    def _begin_contents(self):
        """Note what has to be read."""
        for (grp,) in self._db.execute("SELECT DISTINCT grp FROM picked ORDER BY grp").fetchall():
            if self._is_regular(grp):
                self._begin(grp, 0)

    def _begin(self, grp, which):
        """Note what has to be read for a file, from the `which`th of its names that has it."""
        line = json.loads(self._names(grp)[0][3])
        candidates = list(self._candidates(grp))
        if line.get("flags", 0) & UNREADABLE:
            self._lost_group(grp, "it could not be read when the backup was made")
        elif which >= len(candidates):
            if which == 0:
                self._lost_group(grp, "its content is missing, or not all of it is there")
        elif not any(piece[3] for piece in candidates[which]):
            self._make_empty(grp)
        else:
            for segment, at, sha, runs, _, _ in candidates[which]:
                if runs:
                    row = (grp, segment, at, sha, json.dumps(runs))
                    self._db.execute("INSERT INTO todo VALUES (?, ?, ?, ?, ?, 0)", row)

    def _fetch_contents(self):
        which = 0
        while True:
            troubles = {}
            self._fetch_all(troubles)
            left = [grp for (grp,) in self._db.execute("SELECT DISTINCT grp FROM todo ORDER BY grp")]
            if not left:
                return
            which += 1
            for grp in left:
                # Perhaps another name of the file has its content where it can be read.
                self._drop(grp)
                if which < len(list(self._candidates(grp))):
                    self._begin(grp, which)
                else:
                    self._lost_group(grp, troubles.get(grp, "its segment is missing"))

    def _fetch_all(self, troubles):
        """Read all that is to be read, of the first copy of each segment, then what failed of the second, and so on."""
        tried = 0
        while True:
            sql = "SELECT DISTINCT segment FROM todo WHERE tried = ?"
            wanted = [self._shelf.segments.get(ident) for (ident,) in self._db.execute(sql, (tried,)).fetchall()]
            jobs = [(s.copies[tried], s) for s in wanted if s is not None and tried < len(s.copies)]
            if not jobs:
                return
            jobs.sort(key=lambda job: (not self._shelf.is_here(job[0].volume), job[0].volume.ident, job[0].file))
            for copy, segment in jobs:
                self._fetch(copy, segment, tried, troubles)
            tried += 1

    def _fetch(self, copy, segment, tried, troubles):
        """Read the wanted pieces of one copy of a segment, from front to end."""
        place = f"tape {copy.volume.title()}, tape file {copy.file}"
        sql = "SELECT rowid, grp, at, sha, runs FROM todo WHERE segment = ? AND tried = ? ORDER BY at"
        rows = self._db.execute(sql, (segment.ident, tried)).fetchall()
        try:
            file = open_payload(self._shelf, copy)
        except Damaged as error:
            self._report.bad(f"{place}: {error}")
            file = None
        plain = None if file is None else Plain(self._tree, segment, file, copy.codec)
        try:
            for rowid, grp, at, sha, runs in rows:
                if plain is not None and self._fetch_piece(plain, grp, at, sha, json.loads(runs), place, troubles):
                    self._db.execute("DELETE FROM todo WHERE rowid = ?", (rowid,))
                    if self._db.execute("SELECT 1 FROM todo WHERE grp = ?", (grp,)).fetchone() is None:
                        self._publish(grp)
                else:
                    troubles.setdefault(grp, f"{place} cannot be read")
                    self._db.execute("UPDATE todo SET tried = tried + 1 WHERE rowid = ?", (rowid,))
        finally:
            if file is not None:
                file.close()

    def _fetch_piece(self, plain, grp, at, sha, runs, place, troubles):
        """Write one piece of a file to its hidden name; return whether it is what was backed up."""
        digest = hashlib.sha256()
        try:
            fd = self._open_hidden(grp)
        except OSError as error:
            troubles[grp] = f"it cannot be written: {error.strerror}"
            return False
        try:
            for place, length in runs:
                end = at + length
                for piece in plain.pieces(at, length):
                    digest.update(piece)
                    write_all(fd, piece, place + length - (end - at))
                    at += len(piece)
        except Damaged as error:
            troubles[grp] = f"{place}: {error}"
            return False
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise Failed(f"the target is full or cannot be written: {error.strerror}") from error
            troubles[grp] = f"it cannot be written: {error.strerror}"
            return False
        finally:
            os.close(fd)
        if base64.b64encode(digest.digest()).decode() != sha:
            troubles[grp] = f"{place}: its content is damaged (SHA-256)"
            return False
        return True

    # -- names ---------------------------------------------------------------------------------------------------------

    def _names(self, grp):
        """Return (id, directory, name, line) of all names of a file that are wanted."""
        if self._last[0] == grp:
            return self._last[1]
        sql = "SELECT files.id, d, name, line FROM picked JOIN files ON files.id = picked.id WHERE picked.grp = ?"
        rows = self._db.execute(sql + " ORDER BY files.id", (grp,)).fetchall()
        self._last = grp, [(ident, d, bytes(name), line) for ident, d, name, line in rows]
        return self._last[1]

    def _is_regular(self, grp):
        return stat.S_ISREG(json.loads(self._names(grp)[0][3])["mode"])

    def _hidden(self, grp):
        """Return the directory in which a file is made, and its name there until it is whole."""
        ident, d, _, line = self._names(grp)[0]
        return self._target.directory(d), f".untape-{os.getpid()}-{ident}".encode(), json.loads(line)

    def _open_hidden(self, grp):
        directory, hidden, line = self._hidden(grp)
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(hidden, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory)
        except FileExistsError:
            # A file in parts; or one that failed from another copy.
            return os.open(hidden, flags, dir_fd=directory)
        os.ftruncate(fd, line["size"])
        return fd

    def _drop(self, grp):
        self._db.execute("DELETE FROM todo WHERE grp = ?", (grp,))
        try:
            directory, hidden, _ = self._hidden(grp)
            os.unlink(hidden, dir_fd=directory)
        except OSError:
            pass  # It was not begun.

    def _lost_group(self, grp, why):
        for _, d, name, _ in self._names(grp):
            self._lost(d, name, why)

    def _make_empty(self, grp):
        """Make a file without data: it has no bytes, or is one hole."""
        try:
            os.close(self._open_hidden(grp))
        except OSError as error:
            self._lost_group(grp, f"it cannot be written: {error.strerror}")
            return
        self._publish(grp)

    def _publish(self, grp):
        """What was made under a hidden name gets its attributes, and then its names."""
        try:
            self._give_and_name(grp)
        except OSError as error:
            self._lost_group(grp, f"somebody else works in the target: {error.strerror}")

    def _give_and_name(self, grp):
        names = self._names(grp)
        directory, hidden, line = self._hidden(grp)
        path = self._tree.path_of(names[0][1], names[0][2])
        fd = os.open(hidden, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            made = os.fstat(fd)
            self._giver.give(fd, line, path)
        except (OSError, OverflowError, Damaged) as error:
            self._report.bad(f"{shown(path)}: not all of it could be set: {error}")
        finally:
            os.close(fd)
        for _, d, name, _ in names:
            try:
                self._link(self._hidden(grp)[0], hidden, self._target.directory(d), name, made)
                self.restored += 1
            except FileExistsError:
                self._report.bad(f"{shown(self._tree.path_of(d, name))}: exists and was left alone")
            except OSError as error:
                self._lost(d, name, f"it cannot be given its name: {error.strerror}")
        # If it is gone, it was renamed.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(hidden, dir_fd=self._hidden(grp)[0])

    def _link(self, directory, hidden, into, name, made):
        """Give a file a name, if there is none of that name."""
        try:
            os.link(hidden, name, src_dir_fd=directory, dst_dir_fd=into, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
                raise
            # A file system without links: the first name gets the file.
            try:
                os.lstat(f"/proc/self/fd/{into}/".encode() + name)
            except FileNotFoundError:
                os.rename(hidden, name, src_dir_fd=directory, dst_dir_fd=into)
                return
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
        found = os.stat(name, dir_fd=into, follow_symlinks=False)
        if (found.st_dev, found.st_ino) != (made.st_dev, made.st_ino):
            # Somebody has put something else there meanwhile.
            os.unlink(name, dir_fd=into)
            raise OSError(errno.EBUSY, "somebody else works in the target")

    # -- links, fifos, devices -----------------------------------------------------------------------------------------

    def _make_others(self):
        for (grp,) in self._db.execute("SELECT DISTINCT grp FROM picked ORDER BY grp").fetchall():
            if self._is_regular(grp):
                continue
            _, d, name, text = self._names(grp)[0]
            line = json.loads(text)
            try:
                if self._make(grp, line, self._tree.path_of(d, name)):
                    self._publish(grp)
            except (OSError, Damaged, OverflowError, ValueError) as error:
                self._lost_group(grp, f"it cannot be made: {error}")

    def _make(self, grp, line, path):
        """Make what has no content; return whether it was made."""
        directory, hidden, _ = self._hidden(grp)
        kind = stat.S_IFMT(line["mode"])
        if line.get("flags", 0) & UNREADABLE:
            self._lost_group(grp, "it could not be read when the backup was made")
            return False
        if kind == stat.S_IFLNK:
            os.symlink(text_in(line, "target"), hidden, dir_fd=directory)
        elif kind == stat.S_IFIFO:
            os.mkfifo(hidden, 0o600, dir_fd=directory)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            if not self._special:
                self._report.count("device nodes were left off; they need --special", path)
                return False
            os.mknod(hidden, kind | 0o600, number_in(line, "rdev", 0, most=0), dir_fd=directory)
        else:
            raise Damaged(f"it is of no known kind ({kind:o})")
        return True


def is_whole_file(pieces, size):
    """Do the pieces of a file, or its parts, make all of it?"""
    end = 0
    for piece in sorted(pieces, key=lambda piece: piece[4]):
        if piece[4] != end:
            return False
        end += piece[5]
    return end == size and bool(pieces)


def write_all(fd, data, at):
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, at)
        view, at = view[count:], at + count


# ---- Commands --------------------------------------------------------------------------------------------------------


def described(found):
    said = found.said
    if found.what == "LABEL":
        return "tape {}, volume {}, pool {}".format(said.get("label"), said.get("volume"), said.get("pool"))
    if found.what == "SET LABEL":
        way = " by the drive" if said.get("encryption") == "drive" else ""
        key = ", encrypted{} with key {}".format(way, said["key_fingerprint"]) if said.get("key_fingerprint") else ""
        return "number {} of {}{}".format(said.get("sequence"), said.get("volume_set"), key)
    if found.what == "HEADER":
        text = "segment {} of set {} ({}), job {}, {}, {}{}"
        encrypted = ", encrypted: {}".format(said["encryption"]) if said.get("encryption") else ""
        day_text = day(said.get("created_ns", 0))
        names = (said.get("number"), said.get("set"), said.get("type"), said.get("job_name"), day_text)
        return text.format(*names, said.get("codec"), encrypted)
    if said.get("encrypted"):
        return "encrypted; --identity FILE shows more"
    if found.what == "SET INDEX":
        state = "final" if said.get("final") else "the set goes on"
        return "of set {}, {}, {} files, {} bytes".format(said.get("set"), state, said.get("files"), said.get("bytes"))
    return ""


def command_list(args, report):
    for path in args.source:
        print(path)
        for found in walk(open_source(path), args.identity):
            print(f"  {found.number:5}  {found.what:9}  {shown(described(found))}".rstrip())
            if found.problem:
                report.bad(f"{path}, tape file {found.number}: {found.what}: {found.problem}")


def secret_in(path):
    """Return the 32 secret bytes of an age key in a file. Raises Failed."""
    letters = "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L"
    try:
        with open(path, encoding="ascii") as file:
            found = re.search(f"AGE-SECRET-KEY-1([{letters}]{{58}})\\b", file.read().upper())
    except (OSError, ValueError) as error:
        raise Failed(f"{path}: {error}") from error
    values = [letters.index(letter) for letter in found[1]] if found else []
    # Bech32: what stands before the 1 counts, and the last six letters make the checksum come out as 1.
    prefix = b"age-secret-key-"
    check = 1
    for value in [byte >> 5 for byte in prefix] + [0] + [byte & 31 for byte in prefix] + values:
        top, check = check >> 25, (check & 0x1FFFFFF) << 5 ^ value
        for bit, factor in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= factor if top >> bit & 1 else 0
    if not found or check != 1:
        raise Failed(f"{path}: there is no whole AGE-SECRET-KEY-1... in it")
    number = 0
    for value in values[:-6]:
        number = number << 5 | value
    return (number >> 4).to_bytes(32, "big")


def command_drive_key(args, report):
    """Print what `stenc -k` takes: HKDF-SHA256 of the secret, without salt."""
    if not UUID.fullmatch(args.volume):
        raise Failed(f"{args.volume}: the volume is a UUID; `untape.py list` shows it with the LABEL")
    first = hmac.new(bytes(32), secret_in(args.file), "sha256").digest()
    print(hmac.new(first, DRIVE_KEY_INFO + args.volume.encode() + b"\1", "sha256").hexdigest())


def command_sets(args, report):
    shelf = Shelf(args, report, False)
    sets = sorted(shelf.sets.values(), key=lambda one: (one.said.get("set_started_ns", 0), one.ident))
    for one in sets:
        said = one.said
        sources = [shown(source) for source in said.get("sources") or ()]
        print(
            "{}  {}  {}  {}".format(
                one.ident, day(said.get("set_started_ns", 0)), said.get("type"), shown(said.get("job_name", ""))
            )
        )
        print("    sources: {}".format(", ".join(sources)))
        print(f"    segments: {len(one.segments) - len(one.missing())} here, {len(one.missing())} missing")
        if one.base is not None:
            print("    builds on {}{}".format(one.base, "" if one.base in shelf.sets else ", which is not here"))
        if not one.is_final:
            print("    its end is not here: it was never completed, or goes on on another tape")
        labels = {label for segment in one.segments.values() for label in segment.tapes.values()}
        labels |= {copy.volume.label for segment in one.segments.values() for copy in segment.copies}
        print("    tapes: {}".format(", ".join(sorted(shown(label) for label in labels if label))))
    return


def wishes_of(paths):
    """Return paths as the tree has them: from the root, without a slash at the end."""
    return [b"/" + b"/".join(part for part in os.fsencode(path).split(b"/") if part) for path in paths]


def listed(line, path):
    mode = line["mode"]
    size = line.get("size", 0)
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        size = "{},{}".format(os.major(line.get("rdev", 0)), os.minor(line.get("rdev", 0)))
    target = " -> " + shown(text_in(line, "target")) if stat.S_ISLNK(mode) else ""
    text = "{} {:>7} {:>7} {:>13} {} {}{}"
    return text.format(
        stat.filemode(mode),
        line.get("uid", 0),
        line.get("gid", 0),
        size,
        day(line.get("mtime", 0)),
        shown(path),
        target,
    )


def command_files(args, report):
    shelf = Shelf(args, report, args.ask)
    tree, _ = load(shelf, shelf.find(args.set))
    for n, path, line, _ in tree.walk([]):
        print(listed(line, path))
        for name, text in tree.db.execute("SELECT name, line FROM files WHERE d = ? ORDER BY name", (n,)).fetchall():
            print(listed(json.loads(text), path.rstrip(b"/") + b"/" + bytes(name)))


def command_restore(args, report):
    shelf = Shelf(args, report, args.ask)
    tree, unknown = load(shelf, shelf.find(args.set))
    restorer = Restorer(shelf, tree, args)
    restorer.run(wishes_of(args.to[1:]), unknown)
    tell(f"{restorer.restored} names were restored to {args.to[0]}")


def command_check(args, report):
    for path in args.source:
        Check(args, path, report).run()


class Check:
    """Reads a whole tape, and says what is wrong with it."""

    def __init__(self, args, path, report):
        self._shelf = Shelf(args, report, False, [path])
        self._volume = next(iter(self._shelf.volumes.values()))
        self._report = report

    def run(self):
        files = self._volume.files
        for found in files:
            if found.problem:
                self._bad(found.number, f"{found.what}: {found.problem}")
            elif found.what in ("unknown", "empty"):
                self._bad(found.number, found.what)
        if not files or files[0].what != "LABEL":
            self._bad(0, "there is no LABEL")
        count = 0
        for at, found in enumerate(files):
            behind = [other.what for other in files[at + 1 : at + 3]]
            if found.what == "HEADER" and behind != ["PAYLOAD", "TRAILER"]:
                self._bad(
                    found.number, "a segment without PAYLOAD and TRAILER: its writing was interrupted, or it is lost"
                )
        for segment in self._shelf.segments.values():
            for copy in segment.copies:
                self._check_copy(segment, copy)
                count += 1
        print(f"{self._volume.title()}: {len(files)} tape files, {count} segments were read")

    def _bad(self, number, text):
        self._report.bad(f"{self._volume.title()}, tape file {number}: {text}")

    def _check_copy(self, segment, copy):
        tree = Tree()
        tree.begin_set()
        if not load_segment(self._shelf, tree, segment):
            return
        end = json.loads(tree.db.execute("SELECT line FROM ends").fetchone()[0])
        digest, length, problem = hashlib.sha256(), 0, ""
        file = self._volume.source.open(copy.file, copy.block_bytes)
        try:
            for piece in chunks_of(file, 4 * MIB):
                digest.update(piece)
                length += len(piece)
        except Damaged as error:
            problem = str(error)
        finally:
            file.close()
        if not problem and base64.b64encode(digest.digest()).decode() == end.get("payload_sha256"):
            if length != end.get("payload_bytes"):
                self._bad(copy.file, "its TRAILER says another length")
            return
        self._bad(
            copy.file, "the PAYLOAD of segment {} is damaged{}".format(segment.number, problem and ": " + problem)
        )
        self._name_damage(tree, segment, copy)

    def _name_damage(self, tree, segment, copy):
        """Unpack every frame and read every file, and name those that are lost."""
        try:
            file = open_payload(self._shelf, copy)
        except Damaged as error:
            self._bad(copy.file, str(error))
            return
        plain = Plain(tree, segment, file, copy.codec)
        try:
            for d, name, text in tree.db.execute("SELECT d, name, pieces FROM files ORDER BY id").fetchall():
                for piece in json.loads(text):
                    try:
                        self._check_piece(plain, piece)
                    except Damaged as error:
                        self._bad(copy.file, f"lost: {shown(tree.path_of(d, bytes(name)))}: {error}")
        finally:
            file.close()

    @staticmethod
    def _check_piece(plain, piece):
        digest = hashlib.sha256()
        for data in plain.pieces(piece[1], sum(length for _, length in piece[3])):
            digest.update(data)
        if base64.b64encode(digest.digest()).decode() != piece[2]:
            raise Damaged("its content is damaged (SHA-256)")


def parsed(arguments):
    about = (__doc__ or "").split("\n\n")
    parser = argparse.ArgumentParser(
        description=about[0], epilog="\n\n".join(about[2:5]), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, function, what in (
        ("list", command_list, "what is on the tapes, tape file by tape file"),
        ("sets", command_sets, "which backups are there"),
        ("files", command_files, "the names in a backup"),
        ("restore", command_restore, "bring a backup back, or paths of it"),
        ("check", command_check, "read everything and compare it with its checksums"),
    ):
        command = commands.add_parser(name, help=what)
        command.set_defaults(function=function)
        if name in ("files", "restore"):
            command.add_argument("set", metavar="SET", help="the beginning of its id, or its number")
        command.add_argument("source", metavar="SOURCE", nargs="+", help="a drive, or a folder of tape files")
        if name in ("files", "restore"):
            command.add_argument(
                "--ask",
                action="store_true",
                default=sys.stdin.isatty(),
                help="ask for tapes, though no terminal is there",
            )
        command.add_argument("--identity", metavar="FILE", help="the key of an encrypted tape, for the program age")
        if name == "restore":
            command.add_argument(
                "--to", metavar="DIR [PATH", nargs="+", required=True, help="the target, and what to bring back: all"
            )
            command.add_argument(
                "--special", action="store_true", help="set-id bits, capabilities and device nodes, too"
            )
    command = commands.add_parser("drive-key", help="of a tape that the drive has encrypted: the key for that drive")
    command.set_defaults(function=command_drive_key)
    command.add_argument("file", metavar="FILE", help="the file with the key, AGE-SECRET-KEY-1...")
    command.add_argument("volume", metavar="VOLUME", help="the tape's UUID, as `list` shows it with the LABEL")
    return parser.parse_args(arguments)


def main(arguments=None):
    """Run a command. Return the exit code: 0 all is well, 1 something is lost or missing, 2 it could not be done."""
    args, report = parsed(arguments), Report()
    try:
        args.function(args, report)
        return report.finish()
    except Failed as error:
        tell(f"untape: {error}")
        report.finish()
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
