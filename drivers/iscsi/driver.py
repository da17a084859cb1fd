"""The driver `iscsi`: drives and a changer behind iSCSI targets, as the settings name them. Blocking."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

from drivers.config import IscsiConfig, LibraryConfig
from drivers.errors import DeviceFailed
from drivers.iscsi.address import Address, Chap, parse_url
from drivers.iscsi.transport import IscsiTransport
from drivers.scsi.changer import ScsiChanger
from drivers.scsi.device import Device
from drivers.scsi.drive import ScsiDrive
from drivers.scsi.serials import Serials

#: Secrets may come from the environment instead of files, for containers.
SECRET = "TAPEFS_CHAP_SECRET"  # noqa: S105 - the name of the variable
TARGET_SECRET = "TAPEFS_CHAP_TARGET_SECRET"  # noqa: S105 - the name of the variable

_SERIALS = "serials.json"


def check(library: LibraryConfig) -> None:
    """Raise ValueError with what to write instead when the settings make no sense. Reads no file, asks no target."""
    if not library.drives:
        raise ValueError('the driver iscsi needs `drives = ["iscsi://HOST[:PORT]/TARGET/LUN", ...]`')
    named = (*library.drives, library.changer) if library.changer else library.drives
    addresses = [_address(url) for url in named]
    for number, address in enumerate(addresses):
        if address in addresses[:number]:
            raise ValueError(f"{address} is named twice")
    login = library.iscsi
    if login.secret_file and not login.user:
        raise ValueError("`secret_file` is of no use without `user`")
    if (login.target_secret_file or login.target_user) and not login.user:
        raise ValueError("a target proves itself only to somebody who logs in: `target_user` needs `user`")
    if login.target_secret_file and not login.target_user:
        raise ValueError("`target_secret_file` is of no use without `target_user`")


def _address(url: str) -> Address:
    address = parse_url(url)
    if address.chap is not None:
        raise ValueError(f"{address}: write `user` and `secret_file` into [library.iscsi], no password into the URL")
    return address


def open_transport(url: str, login: IscsiConfig) -> IscsiTransport:
    """Connect to the unit at `url`. Raises DeviceGone, DeviceFailed, and ValueError when `check` would."""
    address = _address(url)
    try:
        chap = _chap(login)
    except ValueError as error:
        raise DeviceFailed(f"cannot log in to {address}: {error}") from error
    return IscsiTransport(replace(address, chap=chap), initiator=login.initiator, patience_s=login.patience_s)


def _chap(login: IscsiConfig) -> Chap | None:
    """Return who we are and our secrets, None when nobody asks. Raises ValueError, DeviceFailed."""
    if not login.user:
        return None
    secret = _secret(login.user, login.secret_file, SECRET, "secret_file")
    if not login.target_user:
        return Chap(login.user, secret)
    theirs = _secret(login.target_user, login.target_secret_file, TARGET_SECRET, "target_secret_file")
    return Chap(login.user, secret, login.target_user, theirs)


def _secret(user: str, file: Path | None, variable: str, setting: str) -> str:
    if variable in os.environ:
        return os.environ[variable]
    if file is None:
        raise DeviceFailed(
            f"there is no secret for the CHAP user {user}: name its file as `{setting}` in [library.iscsi] of"
            f" tapefs.toml, or set {variable}"
        )
    try:
        return file.read_text().rstrip("\r\n")
    except OSError as error:
        raise DeviceFailed(f"cannot read the secret of the CHAP user {user} in {file}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise DeviceFailed(f"{file} holds no text: write the secret of the CHAP user {user} into it") from None


def open_drive(library: LibraryConfig, number: int) -> ScsiDrive:
    """Open drive `number`, from 0. Raises DriveInUse, DeviceFailed, and ValueError when there is none."""
    if not 0 <= number < len(library.drives):
        raise ValueError(f"there is no drive {number}: tapefs.toml names {len(library.drives)}")
    return ScsiDrive(open_transport(library.drives[number], library.iscsi), library.folder)


def open_changer(library: LibraryConfig) -> ScsiChanger:
    """Open the changer, and find which of its drives is which. Raises DeviceFailed."""
    serials = Serials(library.folder / _SERIALS)
    found = [serials.of(url, partial(_ask_serial, url, library.iscsi)) for url in library.drives]
    return ScsiChanger(open_transport(library.changer, library.iscsi), found)


def _ask_serial(url: str, login: IscsiConfig) -> str:
    transport = open_transport(url, login)
    try:
        return Device(transport).serial
    finally:
        transport.close()
