"""POSIX ACLs: from the kernel's extended attribute to the text that tar archives carry. Pure functions.

The attribute (`system.posix_acl_access`, `system.posix_acl_default`) is little endian: a version of 4 bytes, then
entries of 8: tag, permissions (2 each), id (4). Text is as acl_to_text(3) writes it, one entry a line, ids as numbers,
which GNU tar and libarchive both read.
"""

from __future__ import annotations

from struct import Struct

#: Name of the attribute -> keyword of the pax record with its text.
ACL_KEYWORDS = {
    b"system.posix_acl_access": b"SCHILY.acl.access",
    b"system.posix_acl_default": b"SCHILY.acl.default",
}

_VERSION = (2).to_bytes(4, "little")
_ENTRY = Struct("<HHI")
_TAGS = {1: b"user:", 2: b"user:%d", 4: b"group:", 8: b"group:%d", 16: b"mask:", 32: b"other:"}
_NAMED = {2, 8}


def acl_text(value: bytes) -> bytes:
    """Return the text of an ACL attribute. Raises ValueError for what the kernel would not have said."""
    if value[:4] != _VERSION or len(value) % _ENTRY.size != 4:
        raise ValueError("it is no ACL of the kernel's version 2")
    return b"".join(_line(*entry) for entry in _ENTRY.iter_unpack(value[4:]))


def _line(tag: int, permissions: int, number: int) -> bytes:
    if tag not in _TAGS or permissions > 7:
        raise ValueError(f"it has an entry of unknown kind {tag} or with permissions {permissions}")
    who = _TAGS[tag] % number if tag in _NAMED else _TAGS[tag]
    bits = b"".join(letter if permissions & bit else b"-" for letter, bit in ((b"r", 4), (b"w", 2), (b"x", 1)))
    return b"%b:%b\n" % (who, bits)
