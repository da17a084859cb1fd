"""Typed ids. On tape only UUIDs are written; the numbers here are the catalog's own and never leave it."""

from typing import NewType
from uuid import uuid4

#: Canonical lower-case UUID strings.
InstallationId = NewType("InstallationId", str)
VolumeId = NewType("VolumeId", str)
SetId = NewType("SetId", str)
SegmentId = NewType("SegmentId", str)
JobId = NewType("JobId", str)
PinId = NewType("PinId", str)

#: Number of a job in this catalog, from 1; what TAF's API calls `task_id`.
JobNumber = NewType("JobNumber", int)
#: Number of a set in this catalog, 1 … 2**24 - 1, never reused; the upper part of an inode number.
SetNumber = NewType("SetNumber", int)

#: Number of an entry (anything but a directory, or a directory seen from its parent) within a set's index, from 0.
EntryNo = NewType("EntryNo", int)
#: Number of a directory within a set's index, from 0; 0 is the root. Taken when the scan enters the directory.
DirectoryNo = NewType("DirectoryNo", int)
#: Ordinal of a segment in the set's table of segments, from 0.
SegmentNo = NewType("SegmentNo", int)
#: Ordinal of a frame within a segment's payload, from 0.
FrameNo = NewType("FrameNo", int)

#: Logical block of a tape as READ POSITION counts it: filemarks count as one block.
BlockNo = NewType("BlockNo", int)
#: Number of filemarks before a place on tape.
FileNo = NewType("FileNo", int)


def new_uuid() -> str:
    """Return a fresh random UUID in canonical form, ready to be wrapped in one of the id types."""
    return str(uuid4())
