"""What tapes of other programs are called: names from their first blocks. Pure functions; any thread may use them.

Only published formats, and only what they say about the name; see docs/format.md, section 11.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

#: Serial number of a VOL1 label, and where its owner stands; the rest is of no use here.
_VOL1_SERIAL = slice(4, 10)
_AMANDA = re.compile(rb"AMANDA: TAPESTART DATE \S+ TAPE (\S+)")
#: A volume label of Bareos and Bacula: its mark with a zero byte, version (4), two times (16), two numbers (16), name.
_BACULA = re.compile(rb"Ba(?:reos \d\.\d|cula \d\.\d) (?:im)?mortal\n\0.{36}([^\0]{1,127})\0", re.DOTALL)
_BACULA_WITHIN = 1024
#: A block header of Proxmox Backup (16 bytes), then a content header (48) with a length at byte 40, then JSON.
_PROXMOX_JSON = 64
_PROXMOX_LENGTH = slice(56, 60)
#: The names of a volume in the second and third structure of a partition of LTFS.
_LTFS_UUID = re.compile(rb"<volumeuuid>\s*([0-9a-fA-F-]{36})\s*</volumeuuid>")
_LTFS_NAME = re.compile(rb"<directory>.{0,4096}?<name[^>]*>([^<]{1,1024})</name>", re.DOTALL)
#: How TAF calls its tapes.
_TAF_NAME = re.compile(r"TP[0-9]{8,}")


class _MediaLabel(msgspec.Struct):
    """What Proxmox Backup writes at the beginning of a tape."""

    uuid: str
    label_text: str


def foreign_names(format: str, block: bytes) -> list[str]:
    """Return what a tape of that format (see `identify`) is called by its first block, the usual name first."""
    reader = _READERS.get(format)
    return [] if reader is None else [name for name in map(_printable, reader(block)) if name]


def ltfs_names(structures: bytes) -> list[str]:
    """Return the volume's name and uuid by what stands behind the VOL1 label of LTFS: its label and its index."""
    found = [pattern.search(structures) for pattern in (_LTFS_NAME, _LTFS_UUID)]
    return [name for match in found if match is not None and (name := _printable(_text(match[1])))]


def is_name_of_taf(name: str) -> bool:
    """Is a volume called so one of TAF's?"""
    return _TAF_NAME.fullmatch(name) is not None


def _ansi(block: bytes) -> list[str]:
    return [_text(block[_VOL1_SERIAL])]


def _ebcdic(block: bytes) -> list[str]:
    return [block[_VOL1_SERIAL].decode("cp037")]


def _amanda(block: bytes) -> list[str]:
    match = _AMANDA.match(block)
    return [] if match is None else [_text(match[1])]


def _bacula(block: bytes) -> list[str]:
    match = _BACULA.search(block[:_BACULA_WITHIN])
    return [] if match is None else [_text(match[1])]


def _proxmox(block: bytes) -> list[str]:
    length = int.from_bytes(block[_PROXMOX_LENGTH], "little")
    try:
        label = msgspec.json.decode(block[_PROXMOX_JSON : _PROXMOX_JSON + length], type=_MediaLabel)
    except msgspec.DecodeError:
        return []  # A tape file behind the label, or another version of it.
    return [label.label_text, label.uuid]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _printable(name: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in name.strip(" \0"))


_READERS: dict[str, Callable[[bytes], list[str]]] = {
    "ANSI label": _ansi,
    "LTFS": _ansi,
    "IBM standard label (EBCDIC)": _ebcdic,
    "AMANDA": _amanda,
    "Bareos": _bacula,
    "Bacula": _bacula,
    "Proxmox Backup": _proxmox,
}
