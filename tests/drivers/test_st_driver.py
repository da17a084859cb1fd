"""The driver `st`: what its settings mean, and what opening says where there is no such device."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivers import registry
from drivers.config import LibraryConfig
from drivers.errors import DeviceGone

DRIVE = "/dev/tape/by-id/scsi-NOBODY-HAS-THIS-nst"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"drives": ()}, "needs `drives = "),
        ({"drives": ("",)}, "empty name"),
        ({"changer": ""}, "needs `changer = "),
    ],
)
def test_settings_that_make_no_sense_are_explained(changes: dict[str, object], reason: str) -> None:
    good = {"driver": "st", "folder": Path("x"), "drives": (DRIVE,), "changer": "/dev/sch0"}
    registry.check_library(LibraryConfig(**good))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=reason):
        registry.check_library(LibraryConfig(**{**good, **changes}))  # type: ignore[arg-type]


def test_with_mtx_no_other_changer_is_wanted() -> None:
    registry.check_library(LibraryConfig(driver="st", folder=Path("x"), drives=(DRIVE,), changer="mtx:/dev/sch0"))


def test_devices_that_are_not_there(tmp_path: Path) -> None:
    library = LibraryConfig(driver="st", folder=tmp_path, drives=(DRIVE,), changer="NOBODY-HAS-THIS")
    with pytest.raises(DeviceGone, match=r"no tape drive .*NOBODY"):
        registry.open_drive(library, 0)
    with pytest.raises(DeviceGone, match=r"no changer NOBODY"):
        registry.open_changer(library)
    with pytest.raises(ValueError, match="no drive 1"):
        registry.open_drive(library, 1)
