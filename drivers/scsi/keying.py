"""The encryption key of a drive: given, given again after a reset, taken away. Blocking; belongs to its session.

A drive keeps its key when the process dies that set it: the notes tell the next one, which takes it away before it
uses the tape. Otherwise what is to be plain would be written encrypted.
"""

from __future__ import annotations

from drivers.errors import DeviceFailed, NotSupported
from drivers.interface import DriveKey, Encryption, NextBlock
from drivers.scsi.device import Device
from drivers.scsi.encryption import (
    NO_KEY,
    Algorithm,
    EncryptionMode,
    EncryptionStatus,
    KeySetting,
    read_capabilities,
    read_encryption_status,
    read_next_block,
    set_data_encryption,
)
from drivers.scsi.notes import Notes


class Keying:
    """What key a drive has, and is to have."""

    def __init__(self, device: Device, notes: Notes) -> None:
        self._device = device
        self._notes = notes
        #: What is set, and set again whenever the drive may have lost it.
        self._setting: KeySetting | None = None

    def put(self, key: DriveKey, *, writes: bool) -> None:
        """Give the drive a key, and see that it has taken it. Raises NotSupported, DeviceFailed."""
        setting = self._setting_of(key, writes)
        before, self._setting = self._setting, setting
        try:
            self._send(setting)
        except NotSupported:
            # Refused as it came: what was set before is still set.
            self._setting = before
            if before is None:
                self._notes.keep_encryption_key(False)
            raise

    def _setting_of(self, key: DriveKey, writes: bool) -> KeySetting:
        algorithm = self._algorithm()
        name = key.name.encode("ascii")[: algorithm.most_name_bytes]
        return KeySetting(
            encrypts=EncryptionMode.ON if writes else EncryptionMode.OFF,
            decrypts=EncryptionMode.MIXED,
            algorithm_index=algorithm.index,
            key=key.secret,
            name=name.ljust(algorithm.most_name_bytes, b"\0") if algorithm.is_name_fixed else name,
        )

    def _algorithm(self) -> Algorithm:
        able = read_capabilities(self._device)
        if able is None or able.aes is None:
            raise NotSupported(f"{self._device.name} cannot encrypt, or not what is loaded: it offers no AES-256-GCM")
        if not able.is_configurable:
            raise NotSupported(
                f"{self._device.name} takes no keys from this host: its library manages them, or its panel"
            )
        return able.aes

    def _send(self, setting: KeySetting) -> None:
        # Before the drive has it: who dies in between leaves a note too many, not one too few.
        self._notes.keep_encryption_key(True)
        set_data_encryption(self._device, setting)
        told = read_encryption_status(self._device)
        if not _is_as_set(told, setting):
            raise DeviceFailed(
                f"{self._device.name} took the key, but does otherwise than it was told: "
                f"writing {told.encrypts.value}, reading {told.decrypts.value}"
            )

    def settle(self) -> None:
        """Give the drive again what it may have lost, or take away what a process left that died."""
        if self._setting is not None:
            self._send(self._setting)
        elif self._notes.has_encryption_key:
            self.clear()

    def clear(self) -> None:
        """Take the key away; harmless when there is none of ours."""
        self._setting = None
        if self._notes.has_encryption_key:
            set_data_encryption(self._device, NO_KEY)
            self._notes.keep_encryption_key(False)

    def look(self) -> Encryption | None:
        """Ask the drive; None when it cannot encrypt."""
        try:
            told = read_encryption_status(self._device)
        except NotSupported:
            return None
        return Encryption(
            encrypts=told.encrypts is not EncryptionMode.OFF,
            decrypts=told.decrypts in (EncryptionMode.ON, EncryptionMode.MIXED),
            key_name=told.key_name,
        )

    def next_block(self) -> NextBlock:
        """Ask what lies before the head; drives need not know."""
        try:
            return read_next_block(self._device)
        except NotSupported:
            return NextBlock.UNKNOWN


def _is_as_set(told: EncryptionStatus, setting: KeySetting) -> bool:
    return (told.encrypts, told.decrypts) == (setting.encrypts, setting.decrypts)
