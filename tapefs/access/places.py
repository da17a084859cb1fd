"""What of this host may be backed up, and where to may be restored, by those who are no admins.

The lists are `[access] sources` and `restore_targets`; with none, such callers can name nothing. A path is looked at as
it is written, name by name, when somebody asks. That is enough for sources: a scan goes down from `/` name by name and
follows no symbolic link, so whoever puts one in the way later has only a source that cannot be entered. What writes
has to go down in the same way when it begins: `open_target`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from tapefs.errors import UsageError
from tapefs.restore.beneath import Beneath

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def root_of(path: bytes, roots: Sequence[str]) -> bytes | None:
    """Return the root that a path is in, or is; None when it is in none. A path with `..` is in none."""
    parts = _parts(path)
    if parts is None:
        return None
    for root in roots:
        names = _parts(os.fsencode(root))
        if names is not None and parts[: len(names)] == names:
            return b"/" + b"/".join(names)
    return None


def open_target(path: bytes, roots: Sequence[str]) -> int:
    """Return a descriptor of an existing folder beneath a root, following no symbolic link below that. Blocks.

    Whoever writes through it stays there, whatever becomes of the path. Raises UsageError when the path is in no root,
    OSError (ELOOP, ENOTDIR) when somebody has put a link in its way.
    """
    root = root_of(path, roots)
    if root is None:
        raise UsageError(f"{os.fsdecode(path)!r} is in none of the folders where files may be restored to")
    beneath = Beneath(os.open(root, _FOLDER))
    try:
        below = (_parts(path) or [])[len(_parts(root) or []) :]
        return os.dup(beneath.directory(b"/".join(below)))
    finally:
        beneath.close()


def _parts(path: bytes) -> list[bytes] | None:
    if not path.startswith(b"/") or b"\0" in path:
        return None
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    return None if b".." in parts else parts


def is_escape(error: OSError) -> bool:
    """Has a link, or what is no folder, stood in the way?"""
    return error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EXDEV)
