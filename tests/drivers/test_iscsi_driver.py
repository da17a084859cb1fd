"""The driver `iscsi`: what its settings mean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from drivers import registry
from drivers.config import IscsiConfig, LibraryConfig
from drivers.errors import DeviceFailed, DeviceGone
from drivers.iscsi.driver import SECRET, TARGET_SECRET, open_transport
from tests.drivers.tgt import Tgt, need_tgt

DRIVE = "iscsi://h/iqn.2026-11.test:lib/1"
CHANGER = "iscsi://h:3260/iqn.2026-11.test:lib/0"
US = ("backup", "our-own-secret1")
THEM = ("library", "their-own-secret")


@pytest.fixture
def tgt(tmp_path: Path) -> Iterator[Tgt]:
    """A target that lets in only us, and proves itself."""
    need_tgt()
    target = Tgt(tmp_path / "tgt")
    try:
        target.add_target()
        target.add_drive(1, target.make_tape("TP0001L6"))
        target.require(*US, outgoing=THEM)
        yield target
    finally:
        target.stop()


@pytest.fixture(autouse=True)
def no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SECRET, raising=False)
    monkeypatch.delenv(TARGET_SECRET, raising=False)


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_secrets_come_from_files(tgt: Tgt, tmp_path: Path) -> None:
    ours, theirs = written(tmp_path / "ours", US[1] + "\n"), written(tmp_path / "theirs", THEM[1])
    open_transport(tgt.url(1), IscsiConfig(user=US[0], secret_file=ours)).close()
    login = IscsiConfig(user=US[0], secret_file=ours, target_user=THEM[0], target_secret_file=theirs)
    open_transport(tgt.url(1), login).close()
    theirs.write_text("not-their-secret")
    with pytest.raises(DeviceFailed, match="cannot log in"):
        open_transport(tgt.url(1), login)


def test_the_environment_goes_before_files(tgt: Tgt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = written(tmp_path / "wrong", "wrong-secret-123")
    monkeypatch.setenv(SECRET, US[1])
    monkeypatch.setenv(TARGET_SECRET, THEM[1])
    open_transport(tgt.url(1), IscsiConfig(user=US[0], secret_file=wrong, target_user=THEM[0])).close()


def test_the_name_that_is_set_is_ours(tgt: Tgt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET, US[1])
    transport = open_transport(tgt.url(1), IscsiConfig(user=US[0], initiator="iqn.2026-11.test:somebody"))
    assert "iqn.2026-11.test:somebody" in tgt.shown()
    transport.close()


def test_secrets_that_cannot_be_had_are_explained(tmp_path: Path) -> None:
    with pytest.raises(DeviceFailed, match=r"name its file as `secret_file` .* or set TAPEFS_CHAP_SECRET"):
        open_transport(DRIVE, IscsiConfig(user="me"))
    with pytest.raises(DeviceFailed, match=r"cannot read the secret .*/none: No such file"):
        open_transport(DRIVE, IscsiConfig(user="me", secret_file=tmp_path / "none"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(DeviceFailed, match="holds no text"):
        open_transport(DRIVE, IscsiConfig(user="me", secret_file=tmp_path / "binary"))
    with pytest.raises(DeviceFailed, match="a user and a secret"):
        open_transport(DRIVE, IscsiConfig(user="me", secret_file=written(tmp_path / "empty", "\n")))
    same = written(tmp_path / "same", "same")
    with pytest.raises(DeviceFailed, match="two different secrets"):
        open_transport(DRIVE, IscsiConfig(user="me", secret_file=same, target_user="them", target_secret_file=same))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"drives": ()}, "needs `drives = "),
        ({"changer": ""}, "needs `changer = "),
        ({"drives": ("/dev/nst0",)}, "is no address"),
        ({"drives": (CHANGER,)}, "is named twice"),
        # The same without its port.
        ({"drives": (DRIVE.replace("lib/1", "lib/0"),)}, "is named twice"),
        ({"drives": ("iscsi://me%hidden@h/iqn.2026-11.test:lib/1",)}, "no password into the URL"),
        ({"iscsi": IscsiConfig(secret_file=Path("x"))}, "without `user`"),
        ({"iscsi": IscsiConfig(target_user="x")}, "`target_user` needs `user`"),
        ({"iscsi": IscsiConfig(user="x", target_secret_file=Path("x"))}, "without `target_user`"),
    ],
)
def test_settings_that_make_no_sense_are_explained(changes: dict[str, object], reason: str) -> None:
    good = {"driver": "iscsi", "folder": Path("x"), "drives": (DRIVE,), "changer": CHANGER}
    registry.check_library(LibraryConfig(**good))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=reason) as failure:
        registry.check_library(LibraryConfig(**{**good, **changes}))  # type: ignore[arg-type]
    assert "hidden" not in str(failure.value)


# -- drives and changer ----------------------------------------------------------------------------------------------


@pytest.fixture
def library(tmp_path: Path) -> Iterator[tuple[Tgt, LibraryConfig]]:
    """A library of tgt with two drives, in whose settings they come the other way round."""
    need_tgt()
    target = Tgt(tmp_path / "tgt")
    try:
        target.add_target()
        for number in (1, 2):
            target.add_drive(number, target.make_tape(f"TP000{number}L6"), serial=f"SERIAL{number}")
        target.add_changer(3, 2, ["TP0001L6", "TP0002L6", None])
        folder = tmp_path / "library"
        folder.mkdir()
        config = LibraryConfig(
            driver="iscsi", folder=folder, drives=(target.url(2), target.url(1)), changer=target.url(3)
        )
        yield target, config
    finally:
        target.stop()


def test_the_registry_opens_a_library(library: tuple[Tgt, LibraryConfig]) -> None:
    _, config = library
    changer = registry.open_changer(config)
    changer.load(0, 0)
    changer.close()
    drive = registry.open_drive(config, 0)
    drive.load()
    assert "SERIAL2" in drive.status().identity
    drive.close()
    with pytest.raises(ValueError, match="there is no drive 2"):
        registry.open_drive(config, 2)
    assert registry.cartridge_bytes(config, "TP0001L6") is None


def test_a_drive_that_is_away_does_not_take_the_library_along(
    library: tuple[Tgt, LibraryConfig], caplog: pytest.LogCaptureFixture
) -> None:
    """Its serial number is remembered; a library that never saw it says what is wrong."""
    target, config = library
    nowhere = "iscsi://127.0.0.1:1/iqn.2026-11.test:gone/1"
    with pytest.raises(DeviceGone, match="Connection refused"):
        registry.open_changer(replace(config, drives=(target.url(2), nowhere)))
    registry.open_changer(config).close()
    notes = config.folder / "serials.json"
    notes.write_text(notes.read_text().replace(target.url(1), nowhere))
    changer = registry.open_changer(replace(config, drives=(target.url(2), nowhere)))
    changer.load(0, 0)
    assert [element.full for element in changer.inventory()][:2] == [True, False]
    changer.close()
    assert "the library goes on without it" in caplog.text


def test_a_drive_of_another_library_is_explained(library: tuple[Tgt, LibraryConfig]) -> None:
    target, config = library
    target.add_drive(4, target.make_tape("TP0004L6"), serial="ELSEWHERE")
    with pytest.raises(DeviceFailed, match="ELSEWHERE"):
        registry.open_changer(replace(config, drives=(target.url(4),)))


def test_the_changer_is_no_drive(library: tuple[Tgt, LibraryConfig]) -> None:
    target, config = library
    with pytest.raises(DeviceFailed, match="is no tape drive"):
        registry.open_drive(replace(config, drives=(target.url(3),)), 0)
    with pytest.raises(DeviceFailed, match="is no changer"):
        registry.open_changer(replace(config, changer=target.url(1), drives=(target.url(2),)))
