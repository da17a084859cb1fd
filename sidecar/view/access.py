"""May a caller see a directory, or read a file? By the mode, the owner and the ACL that the source had.

Functions without state, but for the look-up of a user's groups. An admin may all. Who stands for a user of this system
may what that user might have done with the source; who stands for nobody may not read any content. A set that another
installation has made gives no rights to anybody but admins: its numbers are those of other people.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from functools import lru_cache, reduce
from operator import or_
from struct import Struct
from typing import NamedTuple

from sidecar.http.callers import Caller, Role

READ, SEARCH = 4, 1

ACL_NAME = b"system.posix_acl_access"
_ACL_ENTRY = Struct("<HHI")
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 1, 2, 4, 8, 16, 32
#: A change of a user's groups counts after as many look-ups of others, or when the sidecar is started again.
_USERS = 256


class Rights(NamedTuple):
    """What decides about an entry."""

    mode: int
    uid: int
    gid: int
    #: The attribute `system.posix_acl_access`; empty: there is none.
    acl: bytes = b""


def may(caller: Caller, rights: Rights, wanted: int, *, is_imported: bool) -> bool:
    """May he READ or SEARCH it? Bits of `wanted` as in a mode."""
    if caller.role is Role.ADMIN or caller.uid == 0:
        return True
    if caller.uid is None or is_imported:
        return False
    groups = groups_of(caller.uid)
    # Like Linux, which looks at no ACL whose mask grants nothing: the group's bits of the mode.
    by_acl = rights.acl and rights.mode & 0o070
    granted = (_by_acl if by_acl else _by_mode)(rights, caller.uid, groups)
    return granted & wanted == wanted


def covers(caller: Caller, name: str, path: bytes) -> bool:
    """Has he a scope of this name for this path, as `storage.read:/jobs/home`? Whole names of folders count."""
    wanted = _names(path)
    return any(wanted[: len(top)] == top for top in _tops(caller, name))


def leads(caller: Caller, name: str, path: bytes) -> bool:
    """Is this one of the folders on the way to what a scope of this name is for?"""
    here = _names(path)
    return any(top[: len(here)] == here for top in _tops(caller, name))


def _tops(caller: Caller, name: str) -> Iterator[list[bytes]]:
    """Yield the paths of the scopes of a name."""
    for scope in caller.scopes:
        kind, _, root = scope.partition(":")
        parts = _names(root.encode("utf-8", "surrogateescape"))
        if kind == name and b".." not in parts:
            yield parts


def _names(path: bytes) -> list[bytes]:
    return [part for part in path.split(b"/") if part]


@lru_cache(_USERS)
def groups_of(uid: int) -> frozenset[int]:
    """Return the groups of a user of this system; none for a number without a user."""
    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        return frozenset()
    return frozenset(os.getgrouplist(user.pw_name, user.pw_gid))


def _by_mode(rights: Rights, uid: int, groups: frozenset[int]) -> int:
    if uid == rights.uid:
        return rights.mode >> 6 & 7
    return rights.mode >> 3 & 7 if rights.gid in groups else rights.mode & 7


def _by_acl(rights: Rights, uid: int, groups: frozenset[int]) -> int:
    """Return what acl(5) grants: the first kind of entry that fits decides; named ones and groups go by the mask."""
    entries: list[tuple[int, int, int]] = list(_ACL_ENTRY.iter_unpack(rights.acl[4:]))
    mask = next((bits for tag, bits, _ in entries if tag == _MASK), 7)
    if uid == rights.uid:
        return next((bits for tag, bits, _ in entries if tag == _USER_OBJ), 0)
    for tag, bits, number in entries:
        if tag == _USER and number == uid:
            return bits & mask
    fitting = [
        bits & mask
        for tag, bits, number in entries
        if (tag == _GROUP_OBJ and rights.gid in groups) or (tag == _GROUP and number in groups)
    ]
    if fitting:
        # Linux takes one entry that grants all that is wanted; what is wanted here is one bit.
        return reduce(or_, fitting)
    return next((bits for tag, bits, _ in entries if tag == _OTHER), 0)
