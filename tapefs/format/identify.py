"""Whose tape is this? Recognises the first block of what other programs write, so that nothing foreign is overwritten.

Pure functions; any thread may use them.
"""

from __future__ import annotations

from typing import NamedTuple


class _Mark(NamedTuple):
    """Bytes at a place in the first block, and who writes them there."""

    offset: int
    magic: bytes
    format: str


#: How every structure of ours begins.
OURS = b"TAPEFS "

#: The first that fits wins: the more telling come first.
_MARKS = (
    _Mark(0, b"AMANDA: ", "AMANDA"),
    # The version of a block header of Bacula (BB01, BB02) and of Bareos (BB02), and the names in their volume labels.
    _Mark(12, b"BB02", "Bareos or Bacula"),
    _Mark(12, b"BB01", "Bacula"),
    _Mark(0, b"Bareos ", "Bareos"),
    _Mark(0, b"Bacula ", "Bacula"),
    # First eight bytes of SHA-256 of "Proxmox Tape Block Header v1.0" and "Proxmox Backup Tape Label v1.0".
    _Mark(0, bytes.fromhex("dcbdafcaeba0a528"), "Proxmox Backup"),
    _Mark(0, bytes.fromhex("2a05bf3cb030aa39"), "Proxmox Backup"),
    _Mark(257, b"ustar", "tar"),
    _Mark(0, b"TAPE", "Microsoft Tape Format"),
    _Mark(0, b"\x28\xb5\x2f\xfd", "zstd"),
    _Mark(0, b"\x1f\x8b", "gzip"),
    _Mark(0, b"BZh", "bzip2"),
    _Mark(0, b"\xfd7zXZ\x00", "xz"),
    _Mark(0, b"7z\xbc\xaf\x27\x1c", "7z"),
    _Mark(0, b"PK\x03\x04", "zip"),
    _Mark(0, b"070701", "cpio"),
    _Mark(0, b"070702", "cpio"),
    _Mark(0, b"070707", "cpio"),
    _Mark(0, b"\xc7\x71", "cpio"),
    _Mark(0, b"\x71\xc7", "cpio"),
)

#: Magics of dump's record header (old, new, and new with 64-bit times), at byte 24, in either byte order.
_DUMP_MAGICS = (60011, 60012, 0x19540119)

#: Marks of Bacula's and Bareos's volume labels, which stand behind headers of varying length.
_LABEL_NAMES = (
    (b"Bareos 2.0 immortal\n", "Bareos"),
    (b"Bacula 1.0 immortal\n", "Bacula"),
    (b"Bacula 0.9 mortal\n", "Bacula"),
)
_LABEL_NAMES_WITHIN = 512


def is_ours(first_block: bytes) -> bool:
    """Tell if the block begins as a structure of tapefs does; it may still be damaged."""
    return first_block.startswith(OURS)


def foreign_format(first_block: bytes) -> str | None:
    """Return whose format the first block of a tape is, as an operator knows it.

    Returns None for a block of ours and for no block at all (a blank tape); "unknown data" for anything else.
    """
    if not first_block or is_ours(first_block):
        return None
    if first_block[:4] in (b"VOL1", b"\xe5\xd6\xd3\xf1"):
        return _ansi(first_block)
    return _labelled(first_block) or _marked(first_block) or _plain_tar(first_block) or "unknown data"


def _ansi(first_block: bytes) -> str:
    """Name the owner of a VOL1 label: the implementation identifier at byte 24 tells LTFS, TAF's tapes among it."""
    if first_block[:4] != b"VOL1":
        return "IBM standard label (EBCDIC)"
    return "LTFS" if first_block[24:28] == b"LTFS" else "ANSI label"


def _labelled(first_block: bytes) -> str | None:
    start = first_block[:_LABEL_NAMES_WITHIN]
    return next((owner for name, owner in _LABEL_NAMES if name in start), None)


def _marked(first_block: bytes) -> str | None:
    for mark in _MARKS:
        if first_block.startswith(mark.magic, mark.offset):
            return mark.format
    dump = {int.from_bytes(first_block[24:28], order) for order in ("little", "big")}
    return "dump" if len(first_block) >= 28 and not dump.isdisjoint(_DUMP_MAGICS) else None


def _plain_tar(first_block: bytes) -> str | None:
    """Recognise a tar header from before ustar by its checksum."""
    header = first_block[:512]
    text = header[148:156].strip(b" \0")
    if len(header) < 512 or not text or text.strip(b"01234567"):
        return None
    return "tar" if int(text, 8) == sum(header) - sum(header[148:156]) + 8 * ord(" ") else None
