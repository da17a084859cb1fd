"""Extended attributes and ACLs of what is backed up. Blocking; any thread."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import NamedTuple

from tapefs.format.acl import ACL_KEYWORDS, acl_text
from tapefs.format.tar import ATTRIBUTES_BYTES

#: Of the others some are made up by the filesystem, and writing them back would be wrong or refused.
_NAMESPACES = ("user.", "trusted.", "security.", *(name.decode("ascii") for name in ACL_KEYWORDS))
#: What a filesystem without extended attributes says.
NOT_THERE = (errno.ENOTSUP, errno.ENOSYS)
#: More than a record adds to the name and the value.
_RECORD_BYTES = 32


class Attributes(NamedTuple):
    """Extended attributes, sorted by name, ACLs among them as the kernel has them."""

    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    #: What they take in a pax header at most.
    bytes: int = 0
    #: What could not be had, for the operator; else empty.
    problem: str = ""


NO_ATTRIBUTES = Attributes()


def known_attributes(xattrs: Sequence[tuple[bytes, bytes]]) -> Attributes:
    """Return attributes that were read before, sorted by name."""
    return Attributes(tuple(xattrs), sum(len(name) + len(value) + _RECORD_BYTES for name, value in xattrs))


def read_attributes(place: int | bytes) -> Attributes:
    """Return the attributes of an open file, or of a path without following a link at its end. Takes 0.4 us for none.

    What cannot be read is left out and told in `problem`.
    """
    follow = isinstance(place, int)
    try:
        names = os.listxattr(place) if follow else os.listxattr(place, follow_symlinks=False)
    except OSError as error:
        if error.errno in NOT_THERE:
            return NO_ATTRIBUTES
        return Attributes(problem=f"its extended attributes cannot be read: {error.strerror}")
    if not names:
        return NO_ATTRIBUTES
    return _values(place, sorted(map(os.fsencode, names)), follow=follow)


def _values(place: int | bytes, names: list[bytes], *, follow: bool) -> Attributes:
    xattrs: list[tuple[bytes, bytes]] = []
    problems: list[str] = []
    total = 0
    for name in names:
        shown = name.decode("utf-8", "backslashreplace")
        if not shown.startswith(_NAMESPACES):
            continue
        try:
            value = os.getxattr(place, name, follow_symlinks=follow)
            if name in ACL_KEYWORDS:
                acl_text(value)
        except OSError as error:
            # ENODATA: it went away meanwhile, which the file's ctime tells.
            if error.errno != errno.ENODATA:
                problems.append(f"attribute {shown} cannot be read: {error.strerror}")
            continue
        except ValueError as error:
            problems.append(f"attribute {shown} is left out: {error}")
            continue
        size = len(name) + len(value) + _RECORD_BYTES
        if total + size > ATTRIBUTES_BYTES:
            problems.append(f"attribute {shown} is left out: all of a file may take {ATTRIBUTES_BYTES // 1024} KiB")
            continue
        total += size
        xattrs.append((name, value))
    return Attributes(tuple(xattrs), total, "; ".join(problems))
