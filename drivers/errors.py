"""The drivers' errors.

    DriveError
    ├── NotReady            no tape is loaded, or the drive is busy becoming ready (retryable)
    ├── DriveInUse          another process holds the drive (retryable)
    ├── WriteProtected      the cartridge is write-protected
    │   └── WormOverwrite   it is WORM, and something is written here already
    ├── IncompatibleMedium  this drive cannot read or write that generation
    ├── CleaningUsedUp      the cleaning cartridge has cleaned as often as it can
    ├── EndOfMedium         physical end of the tape: nothing of this block was written
    ├── EndOfData           a read or a locate went past the last written block
    ├── ReadFailed          the block is unreadable; `block` says which
    ├── NoSuchFile          a file of another program is not on the mounted volume
    ├── WriteFailed         the block was not written, and blocks since the last sync may be lost
    │   └── DiskFull        so, and the disk below a virtual tape is the reason, not the tape
    ├── Undecryptable       the drive encrypted the block, and has no key for it
    │   ├── WrongKey        it has another one
    │   └── NotEncrypted    the other way round: it is to read nothing that is not encrypted
    ├── PositionLost        reset or power-on: verify label and position before going on
    ├── DeviceFailed        hardware or transport error
    │   ├── BadAnswer       what the device answered makes no sense
    │   ├── NotSupported    the device does not know a command, or not with these values
    │   └── TransportFailed the way to the device broke: nobody knows whether the command was done
    │       └── DeviceGone  so, and the device cannot be reached any more
    └── ChangerError
        ├── SlotEmpty
        ├── SlotFull
        └── NoSuchElement

Messages are written for the operator; `retryable` tells whether the same call can succeed later by itself.
"""

from __future__ import annotations


class DriveError(Exception):
    """Base of everything a driver raises."""

    #: Can the same call succeed later without anybody doing anything?
    retryable = False


class NotReady(DriveError):
    """No tape is loaded, or the drive is still becoming ready."""

    retryable = True


class DriveInUse(DriveError):
    """Another process holds the drive."""

    retryable = True


class WriteProtected(DriveError):
    """The cartridge is write-protected: move its tab or use another one."""


class WormOverwrite(WriteProtected):
    """The cartridge can be written once, and there is something here already: append, or use another one."""


class IncompatibleMedium(DriveError):
    """The drive cannot use a cartridge of that generation in the wanted way."""


class CleaningUsedUp(DriveError):
    """The cleaning cartridge has cleaned as often as it can: put in another one."""


class EndOfMedium(DriveError):
    """The physical end of the tape is reached; nothing of the refused block was written."""


class EndOfData(DriveError):
    """There is nothing behind the last written block."""


class ReadFailed(DriveError):
    """A block could not be read."""

    def __init__(self, message: str, block: int) -> None:
        super().__init__(message)
        #: Logical block that failed.
        self.block = block


class NoSuchFile(DriveError):
    """A file of somebody else's that should be on a mounted volume is not there, or is no regular file."""


class WriteFailed(DriveError):
    """A block was not written; blocks written since the last synchronous filemark may be lost too."""

    def __init__(self, message: str, block: int) -> None:
        super().__init__(message)
        #: Logical block that failed.
        self.block = block


class DiskFull(WriteFailed):
    """The disk below the virtual library is full: no tape of it can be written, and none is to blame."""


class Undecryptable(DriveError):
    """The block is encrypted, and the drive has no key: no fault of tape or drive. The head stays before it."""


class WrongKey(Undecryptable):
    """The block is encrypted with another key than the drive has."""


class NotEncrypted(Undecryptable):
    """The drive was told to read encrypted blocks only, and this one is not."""


class PositionLost(DriveError):
    """The drive was reset: buffered blocks may be lost, the position is unknown. Rewind and verify before going on."""


class DeviceFailed(DriveError):
    """The hardware or the way to it failed."""


class BadAnswer(DeviceFailed):
    """What the device answered is too short, or contradicts itself."""


class NotSupported(DeviceFailed):
    """The device does not know a command, or not with these values: perhaps it knows another way."""


class TransportFailed(DeviceFailed):
    """The way to the device broke, or it did not answer in time: nobody knows whether the command was done."""


class DeviceGone(TransportFailed):
    """The device cannot be reached any more."""


class ChangerError(DriveError):
    """Base of what a changer raises."""


class SlotEmpty(ChangerError):
    """There is no cartridge where one should be taken from."""


class SlotFull(ChangerError):
    """There is a cartridge already where one should be put."""


class NoSuchElement(ChangerError):
    """The library has no such slot or drive."""
