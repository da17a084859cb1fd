"""A tape in a drive of the kernel's st, as a model; the real one is in tests/drivers/uml/test_end_to_end.py."""

from __future__ import annotations

import errno
import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.backup.rig import Rig, rigs
from tests.backup.trees import random_files
from tests.compare.look import differences, look
from tests.untape.runs import SCRIPT, cartridges, tape_files

BLOCK_BYTES = 4096


class Drive:
    """What st does with a tape of files of blocks; some blocks cannot be read. Instead of os.read and fcntl.ioctl."""

    def __init__(self, untape: ModuleType, files: list[bytes]) -> None:
        self._untape = untape
        self._files = [[each[at : at + BLOCK_BYTES] for at in range(0, len(each), BLOCK_BYTES)] for each in files]
        self.bad: set[tuple[int, int]] = set()
        self.file = self.block = 0
        #: After an error only rewinding helps.
        self.is_lost = False
        self.rewinds = 0

    def ioctl(self, _fd: int, request: int, argument: bytes) -> bytes:
        if request == self._untape.MTIOCGET:
            is_end = self.file >= len(self._files)
            return self._untape._MTGET.pack(0, 0, 0, self._untape.GMT_EOD if is_end else 0, 0, self.file, self.block)
        assert request == self._untape.MTIOCTOP
        operation, count = self._untape._MTOP.unpack(argument)
        if operation == self._untape.MTREW:
            self.file = self.block = 0
            self.is_lost = False
            self.rewinds += 1
        elif self.is_lost:
            raise OSError(errno.EIO, "Input/output error")
        elif operation == self._untape.MTFSF:
            if self.file + count > len(self._files):
                self.file = len(self._files)
                raise OSError(errno.EIO, "Input/output error")
            self.file, self.block = self.file + count, 0
        elif operation == self._untape.MTFSR:
            self.block += count
            if self.block > len(self._files[self.file]):
                self.file, self.block = self.file + 1, 0
                raise OSError(errno.EIO, "Input/output error")
        else:
            assert (operation, count) == (self._untape.MTSETBLK, 0)
        return argument

    def read(self, _fd: int, count: int) -> bytes:
        if self.is_lost:
            raise OSError(errno.EIO, "Input/output error")
        if self.file >= len(self._files):
            return b""
        if (self.file, self.block) in self.bad:
            self.is_lost = True
            raise OSError(errno.EIO, "Input/output error")
        blocks = self._files[self.file]
        if self.block == len(blocks):
            self.file, self.block = self.file + 1, 0
            return b""
        self.block += 1
        if len(blocks[self.block - 1]) > count:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return blocks[self.block - 1]


@pytest.fixture
def untape(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("untape", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def make_rig(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    yield from rigs(tmp_path)


class System:
    """The module os, but for the calls that a drive answers."""

    def __init__(self, drive: Drive) -> None:
        self._drive = drive

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def read(self, fd: int, count: int) -> bytes:
        return self._drive.read(fd, count)


def test_a_tape_with_blocks_that_cannot_be_read(
    make_rig: Callable[..., Rig],
    untape: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """They cost the files in them, wherever they are; the drive is put behind them and read on."""
    monkeypatch.setattr("tapefs.setup_home.BackupSettings", _small_blocks)
    tree = random_files(tmp_path / "tree", 40, 50_000)
    rig = make_rig(backup_settings="frame_bytes = 65536")
    set_id = rig.backup(tree)
    (cartridge,) = cartridges(rig)
    drive = Drive(untape, [path.read_bytes() for path in sorted(cartridge.glob("?????"))])
    monkeypatch.setattr(untape, "os", System(drive))
    monkeypatch.setattr(untape.fcntl, "ioctl", drive.ioctl)
    monkeypatch.setattr(untape, "open_source", lambda path: untape.Tape("/dev/null"))
    arguments = ["restore", set_id, "/dev/nst0", "--to"]
    assert untape.main([*arguments, str(tmp_path / "whole")]) == 0
    assert differences(look(Path(f"{tmp_path / 'whole'}{tree}")), look(tree)) == []
    # One pass to look at the tape, one to read the payload; nothing was in the way.
    assert drive.rewinds <= 3
    capsys.readouterr()
    payload = int(tape_files(rig, set_id, 0)[1].name)
    drive.bad = {(payload, 30), (payload, 31), (payload, 200), (0, 0), (payload - 1, 0)}
    assert untape.main([*arguments, str(tmp_path / "part")]) == 1
    told = capsys.readouterr().err
    found = look(Path(f"{tmp_path / 'part'}{tree}"))
    lost = [path for path in look(tree) if path not in found]
    assert 1 < len(lost) < 12
    assert all(f"lost: {tree}/{os.fsdecode(path)}: " in told for path in lost)
    assert untape.main(["check", "/dev/nst0"]) == 1
    # A tape that ends in the payload.
    drive.bad = set()
    drive._files = [*drive._files[:payload], drive._files[payload][:100]]
    assert untape.main(["list", "/dev/nst0"]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()[-4:]] == [
        "LABEL", "SET", "HEADER", "PAYLOAD",
    ]  # fmt: skip


def test_blocks_larger_than_what_is_read(untape: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    drive = Drive(untape, [b"x", b"yz"])
    drive._files = [[b"a" * (9 << 20)], [b"b" * 100, b"c"]]
    monkeypatch.setattr(untape, "os", System(drive))
    monkeypatch.setattr(untape.fcntl, "ioctl", drive.ioctl)
    tape = untape.Tape("/dev/null")
    assert len(tape.open(0).read(16 << 20)) == 9 << 20
    assert tape.open(1).read(1000) == b"b" * 100 + b"c"
    assert list(tape.numbers()) == [0, 1]


def _small_blocks() -> Any:
    from tapefs.settings.backup import BackupSettings

    return BackupSettings(block_size=BLOCK_BYTES)
