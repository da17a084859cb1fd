"""The audit log: who has done what, one JSON object a line, each with the hash of the line before it.

HOME/audit/audit.jsonl is appended to; beyond MOST_BYTES it becomes audit.N.jsonl and the next one goes on with its
chain. A line that was changed, taken out or put in breaks the chain; head.json tells where it ends, so lines that were
cut off at its end are missed, too. Who can write all of these files can forge all of them: copy the newest hash
elsewhere (`tapefs audit verify` prints it) if that is to be noticed as well.

Blocking; any thread. A line that is to be durable is on disk when `append` returns.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tapefs.durable import sync_folder
from tapefs.errors import HomeError

MOST_BYTES = 16 * 1024 * 1024
#: What is said of a value that is not there.
NULL = msgspec.Raw(b"null")
#: What the first line has in place of a hash.
NOTHING = "0" * 64
#: Longer texts are cut.
LONGEST_TEXT = 2000

_SECRET = re.compile(
    r"pass(word|phrase|wd)?|secret|token|api_?key|private|credential|authorization|\burl\b|api_url", re.I
)


#: What was typed into a wrong field, or put into a path.
_TOKEN = re.compile(r"tapefs_[A-Za-z0-9_-]{20,}|AGE-SECRET-KEY-1[A-Z0-9]*", re.I)
#: Of URLs, and of addresses of databases in either form.
_PASSWORD = re.compile(r"(://[^/\s:@]*:)[^\s/]+(?=@)|(\w*password=)(?:'(?:\\.|[^'\\])*'|[^\s&]+)", re.I)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line."""

    #: From 1, without gaps.
    number: int = 0
    #: ISO 8601, UTC.
    at: str
    #: Name, uid and address of who did it; uid None and address empty where there is none.
    who: str
    uid: int | None = None
    address: str = ""
    #: What was done: `POST /api/tape/erase`, and to what.
    operation: str
    resource: str = ""
    #: `begun`, `done`, `refused` or `failed`.
    outcome: str
    status: int = 0
    request: str = ""
    duration_ms: float = 0.0
    error: str = ""
    old: msgspec.Raw = NULL
    new: msgspec.Raw = NULL
    #: SHA-256 of the line before this one.
    before: str = ""


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """Where the chain ends."""

    number: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Checked:
    """What a look at the whole log has found."""

    entries: int
    #: Hash of the newest line.
    sha256: str
    problems: list[str]


class AuditLog:
    """The log of a state folder; one process writes it."""

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        self._folder = folder
        self._path = folder / "audit.jsonl"
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._head: Head | None = None

    def append(self, draft: Entry, *, is_durable: bool = False) -> Entry:
        """Write a line; its `number` and `before` are replaced. Raises HomeError."""
        with self._lock:
            try:
                head = self._head or self._find_head()
                entry = msgspec.structs.replace(draft, number=head.number + 1, before=head.sha256)
                line = msgspec.json.encode(entry)
                self._write(line, is_durable=is_durable)
                self._head = Head(number=entry.number, sha256=hashlib.sha256(line).hexdigest())
                self._write_head(self._head)
                self._rotate()
            except OSError as error:
                self._head = None
                raise HomeError(f"the audit log {self._path} cannot be written: {error.strerror}") from error
        return entry

    def _find_head(self) -> Head:
        """Return where the lines end; a torn last line (a crash) is cut off, for nobody was told that it is there."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        last = b""
        for path in files_of(self._folder):
            data = path.read_bytes()
            if data and not data.endswith(b"\n"):
                data = data[: data.rfind(b"\n") + 1]
                os.truncate(path, len(data))
            last = data.rstrip(b"\n").rpartition(b"\n")[2] or last
        noted = read_head(self._folder)
        if not last:
            return noted or Head(number=0, sha256=NOTHING)
        try:
            number = msgspec.json.decode(last, type=Entry).number
        except msgspec.DecodeError:
            number = noted.number if noted else 0
        return Head(number=number, sha256=hashlib.sha256(last).hexdigest())

    def _write(self, line: bytes, *, is_durable: bool) -> None:
        is_new = not self._path.exists()
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            data = line + b"\n"
            while data:
                data = data[os.write(descriptor, data) :]
            if is_durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            sync_folder(self._folder)

    def _write_head(self, head: Head) -> None:
        draft = self._folder / ".head.part"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(head))
        draft.rename(self._folder / "head.json")

    def _rotate(self) -> None:
        if self._path.stat().st_size > self._most_bytes:
            number = max((_number_of(path) for path in files_of(self._folder)), default=0) + 1
            self._path.rename(self._folder / f"audit.{number}.jsonl")
            sync_folder(self._folder)


def files_of(folder: Path) -> list[Path]:
    """Return the files of the log, oldest first."""
    old = sorted((path for path in folder.glob("audit.*.jsonl") if _number_of(path)), key=_number_of)
    newest = folder / "audit.jsonl"
    return [*old, newest] if newest.exists() else old


def _number_of(path: Path) -> int:
    found = re.fullmatch(r"audit\.(\d+)\.jsonl", path.name)
    return int(found[1]) if found else 0


def read_head(folder: Path) -> Head | None:
    """Return what was noted of the end of the chain; None when nothing is, or nothing that makes sense."""
    try:
        return msgspec.json.decode((folder / "head.json").read_bytes(), type=Head)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def lines_of(folder: Path) -> Iterator[bytes]:
    """Yield all lines, oldest first. Raises OSError."""
    for path in files_of(folder):
        with path.open("rb") as file:
            for line in file:
                yield line.rstrip(b"\n")


def entries_of(folder: Path) -> Iterator[Entry]:
    """Yield all entries that can be read, oldest first. Raises OSError."""
    for line in lines_of(folder):
        try:
            yield msgspec.json.decode(line, type=Entry)
        except msgspec.DecodeError:
            continue


def check_log(folder: Path) -> Checked:
    """Go along the chain; blocking. Raises OSError."""
    problems: list[str] = []
    number, sha256, count = 0, NOTHING, 0
    for line in lines_of(folder):
        count += 1
        try:
            entry = msgspec.json.decode(line, type=Entry)
        except msgspec.DecodeError as error:
            problems.append(f"line {count} cannot be read: {error}")
            number, sha256 = number + 1, hashlib.sha256(line).hexdigest()
            continue
        if entry.number != number + 1:
            problems.append(f"entry {entry.number} stands behind entry {number}: some were taken out or put in")
        elif entry.before != sha256:
            problems.append(f"entry {entry.number} does not go on from the one before it: one of them was changed")
        number, sha256 = entry.number, hashlib.sha256(line).hexdigest()
    head = read_head(folder)
    if head is None:
        if count:
            problems.append("head.json is missing: whether lines were cut off at the end cannot be told")
    elif head.number > number:
        problems.append(f"the log ends with entry {number}, but had {head.number}: its end was cut off")
    elif head.number == number and head.sha256 != sha256:
        problems.append(f"entry {number} is not the one that was written last: it was changed")
    return Checked(count, sha256, problems)


def without_secrets(value: object, depth: int = 0) -> object:
    """Return a JSON value with all that may be a secret replaced, and long texts cut."""
    if depth > 8:
        return "…"
    if isinstance(value, dict):
        return {
            str(key): "…" if _SECRET.search(str(key)) and each else without_secrets(each, depth + 1)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [without_secrets(each, depth + 1) for each in value[:100]]
    return without_tokens(value)[:LONGEST_TEXT] if isinstance(value, str) else value


def has_password(text: str) -> bool:
    """Is there a password in it, as URLs and addresses of databases have them?"""
    return _PASSWORD.search(text) is not None


def without_tokens(text: str) -> str:
    """Return a text without what has the form of our tokens, of the secret half of a key, or of a password in a URL."""
    return _PASSWORD.sub(lambda found: f"{found[1] or found[2]}…", _TOKEN.sub("…", text))
