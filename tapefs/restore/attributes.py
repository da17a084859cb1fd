"""Gives what was restored its owner, mode, extended attributes, ACLs and times, and tells what was refused.

The order is the kernel's: chown takes set-id bits and capabilities away, so it comes first; `user.*` needs the right to
write, so it comes before the mode; an ACL changes the mode's group bits, so it comes behind it; the times are last.
What the file system or the privileges do not allow is never fatal and never silent: it comes back as `Refused`.
Functions without state.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import time
from collections.abc import Sequence
from typing import NamedTuple, Protocol

Xattrs = Sequence[tuple[bytes, bytes]]
#: A descriptor, or the name of one in /proc where it was opened with O_PATH.
Where = int | str

#: uid or gid that means "leave it" to chown.
_NOBODY_AT_ALL = (1 << 32) - 1
_SET_ID_BITS = stat.S_ISUID | stat.S_ISGID
_ACLS = (b"system.posix_acl_access", b"system.posix_acl_default")
_ACCESS_ACL = _ACLS[0]
#: Set before the mode, because they need the right to write.
_EARLY = (b"user.", b"trusted.")
_ACL_VERSION = 2
_ACL_ENTRY = struct.Struct("<HHI")
_ACL_GROUP, _ACL_MASK = 0x04, 0x10


class Attributes(Protocol):
    """Owner, mode and time; entries and directories of an index have them."""

    @property
    def mode(self) -> int: ...  # noqa: D102 - as st_mode
    @property
    def uid(self) -> int: ...  # noqa: D102
    @property
    def gid(self) -> int: ...  # noqa: D102
    @property
    def mtime_ns(self) -> int: ...  # noqa: D102


class Refused(NamedTuple):
    """Something that could not be given back; equal for all names with the same trouble."""

    #: In the plural: `owners`, `ACLs`, `capabilities`, `attributes user.*`.
    what: str
    #: For the operator.
    reason: str


#: What only root can set, and is no surprise to anybody else.
OWNERS = Refused("owners", "only root can set them, and only those that exist")
SET_ID_BITS = Refused("set-id bits", "the owner could not be set: a program must not run as whoever restored it")


def apply(
    where: Where, found: os.stat_result, attributes: Attributes, xattrs: Xattrs, *, clean: bool = False
) -> list[Refused]:
    """Set everything; `found` is how it is now. Return what was refused.

    With `clean` what it has besides, ACLs inherited from the directory and attributes it had before, goes.
    Raises OSError.
    """
    refused: list[Refused] = []
    has_owner = _own(where, found, attributes)
    if not has_owner:
        refused.append(OWNERS)
    if clean:
        _clean(where, xattrs)
    late = [(name, value) for name, value in xattrs if not name.startswith(_EARLY)]
    if len(late) < len(xattrs):
        refused += _set_xattrs(where, [pair for pair in xattrs if pair[0].startswith(_EARLY)])
    if not stat.S_ISLNK(found.st_mode):
        refused += _set_mode(where, attributes.mode, has_owner=has_owner)
    if late:
        refused += _set_late(where, late, found)
    os.utime(where, ns=_times(attributes))
    return refused


def differs(where: Where, attributes: Attributes, xattrs: Xattrs) -> bool:
    """Tell whether an existing directory has another owner or mode, or lacks an attribute."""
    found = os.stat(where)
    is_same = (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (
        attributes.uid,
        attributes.gid,
        stat.S_IMODE(attributes.mode),
    )
    return not is_same or any(_value(where, name) != value for name, value in xattrs)


def remove_acls(where: Where) -> None:
    """Take away the ACLs that a new name inherited from its directory. Raises OSError."""
    for name in _names(where):
        if name in _ACLS:
            os.removexattr(where, name)


def inherits(where: Where) -> bool:
    """Do new names in this directory inherit an ACL?"""
    return _ACLS[1] in _names(where)


def _own(where: Where, found: os.stat_result, attributes: Attributes) -> bool:
    if (found.st_uid, found.st_gid) == (attributes.uid, attributes.gid):
        return True
    if not (0 <= attributes.uid < _NOBODY_AT_ALL and 0 <= attributes.gid < _NOBODY_AT_ALL):
        return False
    try:
        os.chown(where, attributes.uid, attributes.gid)
    except OSError as error:
        # EINVAL: an id that this user namespace does not have.
        if error.errno in (errno.EPERM, errno.EINVAL):
            return False
        raise
    return True


def _set_mode(where: Where, mode: int, *, has_owner: bool) -> list[Refused]:
    mode = stat.S_IMODE(mode)
    if has_owner or not mode & _SET_ID_BITS:
        os.chmod(where, mode)
        return []
    os.chmod(where, mode & ~_SET_ID_BITS)
    return [SET_ID_BITS]


def _set_late(where: Where, xattrs: Xattrs, found: os.stat_result) -> list[Refused]:
    refused = []
    for name, value in xattrs:
        why = _set_xattrs(where, [(name, value)])
        refused += why
        if why and name == _ACCESS_ACL and not stat.S_ISLNK(found.st_mode):
            # Without its ACL the group would get what the mask allows to any of those that the ACL named.
            mode = stat.S_IMODE(os.stat(where).st_mode)
            os.chmod(where, mode & (~stat.S_IRWXG | _group_bits(value)))
    return refused


def _group_bits(acl: bytes) -> int:
    """Return what the owning group may do under an ACL, as bits of a mode; nothing if it is damaged."""
    if len(acl) % _ACL_ENTRY.size != 4 or acl[:4] != struct.pack("<I", _ACL_VERSION):
        return 0
    allowed = {tag: bits for tag, bits, _ in _ACL_ENTRY.iter_unpack(acl[4:]) if tag in (_ACL_GROUP, _ACL_MASK)}
    return int(allowed.get(_ACL_GROUP, 0) & allowed.get(_ACL_MASK, 7) & 7) << 3


def _set_xattrs(where: Where, xattrs: Xattrs) -> list[Refused]:
    refused = []
    for name, value in xattrs:
        try:
            os.setxattr(where, name, value)
        except ValueError:
            refused.append(Refused(_kind(name), "its name has a NUL in it"))
        except OSError as error:
            refused.append(Refused(_kind(name), _reason(error)))
    return refused


def _kind(name: bytes) -> str:
    if name in _ACLS:
        return "ACLs"
    if name == b"security.capability":
        return "capabilities"
    namespace = name.partition(b".")[0] if b"." in name else b""
    # Only a few, whatever a hostile index says: refusals are counted by kind.
    if namespace in (b"user", b"trusted", b"security", b"system"):
        return f"attributes {namespace.decode()}.*"
    return "attributes of unknown kinds"


def _reason(error: OSError) -> str:
    if error.errno == errno.ENOTSUP:
        return "the file system there does not have them"
    if error.errno == errno.EPERM:
        return "not permitted: only root can set them, and not on every kind of file"
    if error.errno == errno.ENOSPC:
        return "the file system there has no room for so many"
    return error.strerror or str(error)


def _clean(where: Where, xattrs: Xattrs) -> None:
    """Remove what is not recorded. Labels of security modules are theirs, not ours."""
    recorded = {name for name, _ in xattrs}
    for name in _names(where):
        if name not in recorded and (name.startswith(_EARLY) or name in _ACLS or name == b"security.capability"):
            os.removexattr(where, name)


def _names(where: Where) -> list[bytes]:
    try:
        return [os.fsencode(name) for name in os.listxattr(where)]
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise


def _value(where: Where, name: bytes) -> bytes | None:
    try:
        return os.getxattr(where, name)
    except (OSError, ValueError):
        return None


def _times(attributes: Attributes) -> tuple[int, int]:
    """Return access and modification time; the access is now, as tar does it."""
    if not -(1 << 63) <= attributes.mtime_ns // 1_000_000_000 < 1 << 63:
        raise OSError(errno.EOVERFLOW, "its time does not fit this system")
    return time.time_ns(), attributes.mtime_ns
