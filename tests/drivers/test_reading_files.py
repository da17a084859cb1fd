"""What the system says of a file, as an error of a tape."""

from __future__ import annotations

import errno
import os

import pytest

from drivers.errors import DeviceFailed, DeviceGone, DriveError, ReadFailed
from drivers.reading_files import read_error


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.EIO, ReadFailed),
        (errno.ENOENT, ReadFailed),
        (errno.EMFILE, DeviceFailed),
        (errno.ENOMEM, DeviceFailed),
        (errno.EACCES, DeviceFailed),
        (errno.ENOTCONN, DeviceGone),
        (errno.ESTALE, DeviceGone),
    ],
)
def test_only_the_medium_is_damaged(code: int, kind: type[DriveError]) -> None:
    """A copy is marked damaged for ReadFailed, so that nothing else may be one."""
    error = read_error("/some/file", OSError(code, os.strerror(code)), 12)
    assert type(error) is kind
    assert str(error) == f"/some/file: {os.strerror(code)}"
    assert not isinstance(error, ReadFailed) or error.block == 12
