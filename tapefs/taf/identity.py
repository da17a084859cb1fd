"""Which tape a folder with TAF's archives is, and the ids that its sets have in the catalog. Blocking; any thread.

All ids follow from what is there, so that importing the same again finds it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from uuid import UUID, uuid5

from catalog.ids import InstallationId, JobId, SegmentId, SetId, VolumeId
from drivers.errors import DriveError
from drivers.ltfs.volume import Volume as Mounted
from tapefs.errors import UsageError
from tapefs.taf.volume import TafVolume

_NAMESPACE = UUID("5b0bd9c6-5d0f-5f0a-9a33-6f1c6c1b7a11")
#: Who has written these tapes: nobody who could be asked.
TAF = InstallationId(str(uuid5(_NAMESPACE, "installation")))
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")


class Identity:
    """A volume as the catalog names it."""

    def __init__(self, volume_id: VolumeId, label: str) -> None:
        self.volume_id = volume_id
        #: By which a drive tells it, too.
        self.label = label

    def set_id(self, taf_id: bytes, archives: Iterable[tuple[bytes, int, int]]) -> SetId:
        """Return the id of a set with these archives: path, bytes, and plain bytes that could be read."""
        told = "".join(f"\0{path.hex()} {size} {plain}" for path, size, plain in sorted(archives))
        return SetId(str(uuid5(_NAMESPACE, f"set {self.volume_id} {taf_id.hex()}{told}")))

    def job_id(self, name: str) -> JobId:
        """Return the id of the job that sets of this name are taken for."""
        return JobId(str(uuid5(_NAMESPACE, f"job {name.encode(errors='surrogateescape').hex()}")))


def segment_id(set_id: SetId, path: bytes) -> SegmentId:
    """Return the id of an archive as a segment of a set."""
    return SegmentId(str(uuid5(_NAMESPACE, f"segment {set_id} {path.hex()}")))


def identify(volume: TafVolume, label: str | None) -> Identity:
    """Return what a volume is called; a plain folder, which is a copy of one, has to be given a `label`.

    Raises UsageError.
    """
    if label is not None and not _LABEL.fullmatch(label):
        raise UsageError(f"{label!r} is no label: up to 32 letters, digits, dots, hyphens and underscores")
    name = _name(volume)
    if volume.facts.is_ltfs:
        if label not in (None, name):
            raise UsageError(f"the volume at {volume.root} is called {name}: drives know it by that name only")
        return Identity(volume_id_of(volume.facts.uuid), name)
    chosen = name or label
    if not chosen:
        raise UsageError(f"{volume.root} is no LTFS volume: say what this copy of one is to be called, with --label")
    if label not in (None, chosen):
        raise UsageError(f"the folder {volume.root} is called {chosen} by its file tapefs/name")
    return Identity(VolumeId(str(uuid5(_NAMESPACE, f"folder {chosen}"))), chosen)


def volume_id_of(uuid: str) -> VolumeId:
    """Return the id of a volume by what LTFS calls its UUID, however that is written."""
    try:
        return VolumeId(str(UUID(uuid)))
    except ValueError:
        return VolumeId(str(uuid5(_NAMESPACE, f"volume {uuid}")))


def _name(volume: TafVolume) -> str:
    """Return what the driver of mounted volumes calls it; empty for a folder without a name."""
    try:
        mounted = Mounted(volume.root, any_filesystem=True)
    except DriveError as error:
        if volume.facts.is_ltfs:
            raise UsageError(str(error)) from error
        return ""
    try:
        return mounted.name
    finally:
        mounted.close()
