"""Whose a tape is, by its labels, or by its first HEADER where one is damaged. Blocking; the drive's thread."""

from __future__ import annotations

from catalog.ids import VolumeId
from drivers.errors import EndOfData, ReadFailed
from drivers.interface import Drive
from tapefs.errors import BadStructure, NotBlank, WrongTape
from tapefs.format.records import DRIVE, Header, Label
from tapefs.format.structures import read_header, read_label, read_set_label
from tapefs.home import Home
from tapefs.keys.driving import key_for, read_with, take_key
from tapefs.keys.policy import Seal
from tapefs.rebuild.records import Tape
from tapefs.tape.blocks import BlockReader

_LABEL_FILES = 2


class Blank(WrongTape):
    """There is nothing on the tape."""


class Labels:
    """The labels of the threaded tape."""

    def __init__(self, home: Home, drive: Drive, reader: BlockReader) -> None:
        self._home = home
        self._drive = drive
        self._reader = reader
        #: What was damaged, for people.
        self.ignored: list[str] = []

    def read(self) -> tuple[Tape, int]:
        """Return whose the tape is, and the length of its labels; the head stands behind them then.

        Raises Blank, NotBlank when it is somebody else's, BadStructure when it cannot be made out, drive errors.
        """
        drive = self._drive
        drive.rewind()
        label, label_bytes, foreign = self._label()
        drive.rewind()
        key, way, is_known = "", "", False
        try:
            drive.space_filemarks(1)
            second = bytes(self._reader.read())
            set_label = read_set_label(second)
            volume, key, is_known = set_label.volume, set_label.key_fingerprint or "", True
            way = set_label.encryption or ""
            label_bytes += len(second)
        except (EndOfData, ReadFailed, BadStructure) as error:
            if foreign is not None:
                raise foreign from None
            if label is None:
                raise BadStructure(f"neither LABEL nor SET LABEL of this tape can be read: {error}") from error
            self.ignored.append(f"the SET LABEL cannot be read: {error}")
            volume = label.volume
        drive.rewind()
        try:
            drive.space_filemarks(_LABEL_FILES)
        except EndOfData:
            drive.seek_end()
        header = None if label is not None and is_known else self._first_header()
        if header is not None and not is_known:
            key, way = header.key_fingerprint or "", header.encryption or ""
        return self._who(label, header, volume, Seal(key, way == DRIVE)), label_bytes

    def _label(self) -> tuple[Label | None, int, NotBlank | None]:
        """Return the LABEL if it is whole, its length, and whose it seems to be if it does not even begin as ours."""
        try:
            block = bytes(self._reader.read())
        except EndOfData:
            raise Blank("there is nothing on the tape") from None
        except ReadFailed as error:
            self.ignored.append(f"the LABEL cannot be read: {error}")
            return None, 0, None
        try:
            return read_label(block), len(block), None
        except NotBlank as error:
            # A damaged one of ours if a SET LABEL follows.
            self.ignored.append("the LABEL cannot be read: it does not begin as one")
            return None, len(block), error
        except BadStructure as error:
            self.ignored.append(f"the LABEL cannot be read: {error}")
            return None, len(block), None

    def _who(self, label: Label | None, header: Header | None, volume: VolumeId, seal: Seal) -> Tape:
        status = self._drive.status()
        if label is not None and label.volume != volume:
            raise BadStructure(f"the LABEL says that this is tape {label.volume}, the SET LABEL says {volume}")
        if label is None and header is None:
            raise BadStructure("the LABEL of this tape cannot be read, and there is no HEADER that tells whose it is")
        told = label or header
        if told is None:
            raise AssertionError("one of them is there")
        return Tape(
            volume_id=volume,
            installation_id=told.installation,
            label=label.label if label is not None else status.barcode or volume,
            barcode=status.barcode or "",
            pool=label.pool if label is not None else self._home.settings.backup.pool,
            created_ns=told.created_ns,
            block_size=told.block_size,
            generation=status.medium_generation or 0,
            capacity_bytes=status.capacity_bytes,
            key_fingerprint=seal.fingerprint,
            by_drive=seal.by_drive,
        )

    def _first_header(self) -> Header | None:
        """Return what the HEADER behind the labels says, for a tape one of whose labels is gone."""
        at = self._drive.position()
        try:
            return read_header(bytes(self._reader.read()))
        except (EndOfData, ReadFailed, BadStructure):
            return None
        finally:
            self._drive.locate(at.block)


def give_key(home: Home, drive: Drive, tape: Tape) -> None:
    """Have the drive read what it has encrypted. Raises KeyMissing, KeyUnfit, drive errors."""
    if tape.by_drive:
        read_with(drive, key_for(home, tape.key_fingerprint, tape.volume_id), tape.label)
    else:
        take_key(drive)
