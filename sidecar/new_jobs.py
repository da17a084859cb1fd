"""What makes a job acceptable, whichever interface asks for it. The checks of sources block; call them in a thread."""

from __future__ import annotations

import os
from collections.abc import Sequence

from sidecar.requests import Invalid
from tapefs.errors import NoSuchThing, SourceError

#: A job's name becomes a folder's name in the mount.
LONGEST_NAME_BYTES = 200
TYPES = {"full": "full", "monthly_full": "full"}
CODECS = ("zstd",)
LEVELS = range(1, 23)
MOST_SOURCES = 10_000


def check_name(name: str, field: str) -> str:
    """Return a job's name without surrounding blanks. Raises Invalid."""
    plain = name.strip()
    try:
        size = len(plain.encode())
    except UnicodeEncodeError:
        raise Invalid("value_error", ["body", field], "must be text that UTF-8 can hold") from None
    if not plain or plain in (".", ".."):
        raise Invalid("value_error", ["body", field], "must be a name", name)
    if "/" in plain or not plain.isprintable():
        raise Invalid("value_error", ["body", field], "must be a file name: no slash, no control characters", name)
    if size > LONGEST_NAME_BYTES:
        raise Invalid("too_long", ["body", field], f"must be at most {LONGEST_NAME_BYTES} bytes long", name)
    return plain


def check_type(kind: object, field: str) -> str:
    """Return the type of set to make. Raises Invalid."""
    plain = kind.lower() if isinstance(kind, str) else ""
    if plain not in TYPES:
        raise Invalid("enum", ["body", field], "must be full; other types of backup are not offered", kind)
    return TYPES[plain]


def check_codec(codec: str, level: int) -> None:
    """Check codec and level. Raises Invalid."""
    if codec not in CODECS:
        raise Invalid("enum", ["body", "codec"], f"must be {' or '.join(CODECS)}", codec)
    if level not in LEVELS:
        raise Invalid("value_error", ["body", "level"], f"must be {LEVELS.start} to {LEVELS.stop - 1}", level)


def check_sources(sources: Sequence[bytes], field: str) -> tuple[bytes, ...]:
    """Return the sources as absolute paths without needless parts.

    Raises Invalid, NoSuchThing, SourceError. Blocking.
    """
    if not sources:
        raise Invalid("too_short", ["body", field], "must name at least one path", [])
    if len(sources) > MOST_SOURCES:
        raise Invalid("too_long", ["body", field], f"must name at most {MOST_SOURCES} paths")
    return tuple(_check_source(source, [field, place]) for place, source in enumerate(sources))


def _check_source(source: bytes, place: list[str | int]) -> bytes:
    shown = source.decode("utf-8", "backslashreplace")
    parts = source.split(b"/")
    if not source.startswith(b"/") or b"\0" in source or b".." in parts:
        raise Invalid("value_error", ["body", *place], "must be an absolute path without `..`", shown)
    try:
        os.lstat(source)
    except (FileNotFoundError, NotADirectoryError):
        raise NoSuchThing(f"there is no {shown}: name something that exists on the host of the sidecar") from None
    except OSError as error:
        raise SourceError(f"{shown} cannot be read: {error.strerror}") from error
    return b"/" + b"/".join(part for part in parts if part not in (b"", b"."))
