"""POSIX ACLs: from the kernel's extended attribute to the text that tar archives carry, and back. Pure functions.

The attribute (`system.posix_acl_access`, `system.posix_acl_default`) is little endian: a version of 4 bytes, then
entries of 8: tag, permissions (2 each), id (4). Text is as acl_to_text(3) writes it, one entry a line, ids as numbers,
which GNU tar and libarchive both read.
"""

from __future__ import annotations

from struct import Struct

from tapefs.errors import BadStructure

#: Name of the attribute -> keyword of the pax record with its text.
ACL_KEYWORDS = {
    b"system.posix_acl_access": b"SCHILY.acl.access",
    b"system.posix_acl_default": b"SCHILY.acl.default",
}

_VERSION = (2).to_bytes(4, "little")
_ENTRY = Struct("<HHI")
_TAGS = {1: b"user:", 2: b"user:%d", 4: b"group:", 8: b"group:%d", 16: b"mask:", 32: b"other:"}
_NAMED = {2, 8}
#: By the word for it, and whether a number follows.
_KINDS = {(text.partition(b":")[0], tag in _NAMED): tag for tag, text in _TAGS.items()}
#: The id of entries that have none.
_NOBODY = 0xFFFFFFFF


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


def acl_value(text: bytes) -> bytes:
    """Return the attribute of which `acl_text` made a text. Raises BadStructure for what it would not have made."""
    entries = []
    for line in text.splitlines():
        kind, _, rest = line.partition(b":")
        number, _, bits = rest.partition(b":")
        tag = _KINDS.get((kind, bool(number)))
        if tag is None or len(bits) != 3 or (number and not number.isdigit()):
            raise BadStructure(f"an ACL in the payload is damaged: {line[:80]!r}")
        permissions = sum(bit for letter, bit in zip(bits, (4, 2, 1), strict=True) if letter != ord("-"))
        who = int(number) if number else _NOBODY
        if who > _NOBODY:
            raise BadStructure(f"an ACL in the payload is damaged: {line[:80]!r}")
        entries.append(_ENTRY.pack(tag, permissions, who))
    return _VERSION + b"".join(entries)
