"""Inode numbers: which set, and which directory or entry of it.

    63 …… 40 39 38 ………… 0
    set number | directory? | number of the directory or entry        in a set
    0          | 0 1          hash of the path                         a virtual node: README.txt, jobs, sets, tapes …
    1                                                                  the root

Set numbers are never reused, and neither are an index's numbers, so an inode number means the same thing for ever.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import NamedTuple, NewType

from catalog.ids import DirectoryNo, EntryNo, SetNumber

Inode = NewType("Inode", int)

ROOT = Inode(1)

_SET_SHIFT = 40
_DIRECTORY_BIT = 1 << 39
_VIRTUAL_BIT = 1 << 38
_NUMBER_MASK = _DIRECTORY_BIT - 1


class Parts(NamedTuple):
    """What an inode number says."""

    #: 0 for virtual nodes.
    set_number: SetNumber
    is_directory: bool
    number: int


def entry_base(set_number: SetNumber) -> int:
    """Return what to add to an entry number of that set."""
    return set_number << _SET_SHIFT


def directory_base(set_number: SetNumber) -> int:
    """Return what to add to a directory number of that set."""
    return set_number << _SET_SHIFT | _DIRECTORY_BIT


def entry_inode(set_number: SetNumber, number: EntryNo) -> Inode:
    """Return the inode number of an entry that is no directory."""
    return Inode(entry_base(set_number) | number)


def directory_inode(set_number: SetNumber, number: DirectoryNo) -> Inode:
    """Return the inode number of a directory of a set."""
    return Inode(directory_base(set_number) | number)


def virtual_inode(path: str) -> Inode:
    """Return the number of the virtual node at `path`; two paths share one about once in 2**38 pairs."""
    digest = blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return Inode(_VIRTUAL_BIT | int.from_bytes(digest, "big") & (_VIRTUAL_BIT - 1))


def split(inode: int) -> Parts:
    """Take an inode number apart."""
    return Parts(SetNumber(inode >> _SET_SHIFT), bool(inode & _DIRECTORY_BIT), inode & _NUMBER_MASK)
