"""Tapes of other programs are recognised from their first block."""

from __future__ import annotations

import gzip
import io
import subprocess
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapefs.format.identify import foreign_format
from tapefs.format.structures import label_block
from tests.format import examples


def _tar(kind: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as archive:
        archive.addfile(tarfile.TarInfo("x"))
    return out.getvalue()


def _v7_tar() -> bytes:
    header = bytearray(_tar(tarfile.USTAR_FORMAT)[:512])
    header[257:265] = bytes(8)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def _cpio(kind: str) -> bytes:
    return subprocess.run(["bsdtar", "--format", kind, "-cf", "-", __file__], check=True, capture_output=True).stdout


def _bareos(name: bytes) -> bytes:
    return bytes(4) + bytes(8) + b"BB02" + bytes(8) + bytes(12) + name + b"Full-0001\0"


FOREIGN = [
    (b"VOL1ABCDEFL            IBM           4".ljust(80), "ANSI label"),
    (b"VOL1ABCDEFL             LTFS".ljust(79) + b"4", "LTFS"),
    ("VOL1ABCDEF".encode("cp037").ljust(80), "IBM standard label (EBCDIC)"),
    (_bareos(b"\0\0\0\1Bareos 2.0 immortal\n\0"), "Bareos"),
    (_bareos(b"\0\0\0\1Bacula 1.0 immortal\n\0"), "Bacula"),
    (bytes(12) + b"BB01" + bytes(8) + b"Bacula 0.9 mortal\n", "Bacula"),
    (bytes(12) + b"BB02" + bytes(100), "Bareos or Bacula"),
    (bytes(12) + b"BB01" + bytes(100), "Bacula"),
    (b"AMANDA: TAPESTART DATE 20260101120000 TAPE DailySet1-01\n\014\n".ljust(32768, b"\0"), "AMANDA"),
    (b"AMANDA: FILE 20260101 host /disk lev 0\n", "AMANDA"),
    (bytes([220, 189, 175, 202, 235, 160, 165, 40]) + bytes(100), "Proxmox Backup"),
    (bytes([42, 5, 191, 60, 176, 48, 170, 57]) + bytes(100), "Proxmox Backup"),
    (_tar(tarfile.GNU_FORMAT), "tar"),
    (_tar(tarfile.PAX_FORMAT), "tar"),
    (_v7_tar(), "tar"),
    (subprocess.run(["zstd", "-c"], input=b"x", check=True, capture_output=True).stdout, "zstd"),
    (gzip.compress(b"x"), "gzip"),
    (_cpio("newc"), "cpio"),
    (_cpio("odc"), "cpio"),
    (_cpio("bin"), "cpio"),
    (bytes(24) + (60012).to_bytes(4, "little") + bytes(996), "dump"),
    (bytes(24) + (0x19540119).to_bytes(4, "big") + bytes(996), "dump"),
    (bytes(512), "unknown data"),
    (b"x", "unknown data"),
]


@pytest.mark.parametrize(("block", "format"), FOREIGN, ids=[f"{at}-{found}" for at, (_, found) in enumerate(FOREIGN)])
def test_foreign_tapes_are_named(block: bytes, format: str) -> None:
    assert foreign_format(block) == format


def test_ours_and_nothing_are_not_foreign() -> None:
    assert foreign_format(label_block(examples.LABEL)) is None
    assert foreign_format(b"") is None


@given(st.binary(min_size=1, max_size=600))
def test_anything_else_has_a_name_too(block: bytes) -> None:
    assert foreign_format(block) is not None or block.startswith(b"TAPEFS ")
