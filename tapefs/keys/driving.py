"""Keys in the drive: given for the tape that is in it, seen to work, and taken away. Blocking; the drive's thread.

What reads gives the drive the key of the tape, by which plain blocks are still written plain. What writes switches
encryption on behind LABELs and HEADERs, and the drive is asked whether it does as it was told, there and before
anything is committed: what is to be encrypted is never committed plain.
"""

from __future__ import annotations

import structlog

from catalog.ids import VolumeId
from catalog.records import Volume
from drivers.errors import DeviceFailed, DriveError, NotSupported, PositionLost
from drivers.interface import Drive, DriveKey, Encryption, Encrypts
from tapefs.errors import KeyMissing, KeyUnfit
from tapefs.home import Home

log = structlog.get_logger(__name__)


def can_encrypt(drive: Drive) -> bool:
    """Is this a drive that encrypts? Raises DeviceFailed."""
    return _told(drive) is not None


def key_for(home: Home, fingerprint: str, volume_id: VolumeId) -> DriveKey:
    """Return what the drive needs for a tape that it encrypts. Raises KeyMissing."""
    from tapefs.keys.reading import identity_of  # With `cryptography` behind it, which most movers never need.

    return DriveKey(identity_of(home, fingerprint).drive_key(volume_id), fingerprint)


def require_key(home: Home, volume: Volume) -> None:
    """Raise KeyMissing when the tape is encrypted by the drive, and its key is not at hand."""
    if volume.by_drive:
        key_for(home, volume.key_fingerprint, volume.volume_id)


def give_key(home: Home, drive: Drive, volume: Volume) -> None:
    """Have the drive able to read the tape that is in it; what it writes is plain.

    Raises KeyMissing, and KeyUnfit when this drive cannot decrypt: then it has no key. Raises drive errors.
    """
    if not volume.by_drive:
        take_key(drive)
        return
    try:
        key = key_for(home, volume.key_fingerprint, volume.volume_id)
    except KeyMissing as error:
        take_key(drive)
        raise KeyMissing(f"tape {volume.label} cannot be read: {error}", error.fingerprint) from error
    read_with(drive, key, volume.label)


def read_with(drive: Drive, key: DriveKey, label: str) -> None:
    """Give the drive a key to read with; what it writes is plain. Raises KeyUnfit, drive errors."""
    if not isinstance(drive, Encrypts) or not can_encrypt(drive):
        raise KeyUnfit(
            f"tape {label} is encrypted by the drive, and this drive cannot do that: use one that encrypts (LTO-4 and "
            "newer), and see that it takes keys from the host"
        )
    try:
        drive.set_key(key, writes=False)
    except NotSupported as error:
        raise KeyUnfit(f"tape {label} cannot be used encrypted by this drive: {error}") from error


def write_plain(drive: Drive, key: DriveKey | None) -> None:
    """What is written from here on can be read without a key: a HEADER. Without a key nothing is to be done."""
    if key is None or not isinstance(drive, Encrypts):
        return
    drive.set_key(key, writes=False)
    told = _told(drive)
    if told is None or told.encrypts:
        raise DeviceFailed("the drive encrypts, though it was told to write plain")


def write_encrypted(drive: Drive, key: DriveKey | None) -> None:
    """What is written from here on is encrypted. Raises DeviceFailed when the drive does not do it, drive errors."""
    if key is None:
        return
    if not isinstance(drive, Encrypts):
        raise DeviceFailed("this drive cannot encrypt")
    drive.set_key(key)
    if not _encrypts_with(_told(drive), key):
        raise DeviceFailed("the drive does not encrypt, though it was given a key: nothing is written")


def require_encrypted(drive: Drive, key: DriveKey | None) -> None:
    """Raise PositionLost when the drive has lost its key since `write_encrypted`: what was written is no good then."""
    if key is not None and not _encrypts_with(_told(drive), key):
        raise PositionLost("the drive has lost its key while it wrote: what it wrote may be plain and is written again")


def take_key(drive: Drive) -> None:
    """The drive needs no key any more; harmless when it has none."""
    if isinstance(drive, Encrypts) and drive.status().loaded:
        drive.set_key(None)


def take_key_at_last(drive: Drive) -> None:
    """As `take_key`, for a drive that may be broken: that is logged, and met again by who uses it next."""
    try:
        take_key(drive)
    except DriveError as error:
        log.warning("the key may still be in the drive", error=str(error))


def _told(drive: Drive) -> Encryption | None:
    return drive.encryption() if isinstance(drive, Encrypts) else None


def _encrypts_with(told: Encryption | None, key: DriveKey) -> bool:
    """Drives need not tell the key's name, nor all of it."""
    return told is not None and told.encrypts and key.name.startswith(told.key_name.rstrip("\0 "))
