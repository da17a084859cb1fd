"""Tapes of other programs, written to virtual cartridges: by those programs, or block by block as their formats say."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from drivers.interface import Drive

#: Blocks of one tape file.
Blocks = Sequence[bytes]
UUID_TEXT = "5f7a1b9c-0c1d-4e2f-8a3b-4c5d6e7f8091"


def _cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def _run(*command: str, data: bytes = b"") -> bytes:
    return subprocess.run(command, input=data, check=True, capture_output=True).stdout


def vol1(serial: str, owner: str = "") -> bytes:
    """An ANSI X3.27 volume label: 80 characters, serial number at 4, owner at 37, level at 79."""
    return f"VOL1{serial:<6}{'':27}{owner:<14}{'':28}4".encode()


def ltfs_vol1(serial: str) -> bytes:
    """As the LTFS format specification says: L at 10, LTFS at 24, owner at 37."""
    return f"VOL1{serial:<6}L{'':13}{'LTFS':<13}{'':14}{'':28}4".encode()


def ltfs_label(partition: str = "a") -> bytes:
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<ltfslabel version="2.4.0">
  <creator>IBM LTFS 2.4.0.0 - Linux - mkltfs</creator>
  <formattime>2026-11-01T12:00:00.000000000Z</formattime>
  <volumeuuid>{UUID_TEXT}</volumeuuid>
  <location><partition>{partition}</partition></location>
  <partitions><index>a</index><data>b</data></partitions>
  <blocksize>524288</blocksize>
  <compression>true</compression>
</ltfslabel>
""".encode()


def ltfs_index(name: str) -> bytes:
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<ltfsindex version="2.4.0">
  <creator>IBM LTFS 2.4.0.0 - Linux - mkltfs</creator>
  <volumeuuid>{UUID_TEXT}</volumeuuid>
  <generationnumber>1</generationnumber>
  <location><partition>a</partition><startblock>5</startblock></location>
  <directory>
    <fileuid>1</fileuid>
    <name>{name}</name>
    <readonly>false</readonly>
    <contents><file><fileuid>2</fileuid><name>x.tar.zst</name></file></contents>
  </directory>
</ltfsindex>
""".encode()


def ltfs(serial: str, name: str) -> list[Blocks]:
    """A partition: VOL1, the label's XML, and an index between filemarks."""
    return [[ltfs_vol1(serial)], [ltfs_label()], [], _cut(ltfs_index(name), 512)]


def bacula(program: str, name: str) -> list[Blocks]:
    """A volume label in a block of version BB02: block header (24 bytes), record header (12), serialised label."""
    identity = {"Bareos": b"Bareos 2.0 immortal\n", "Bacula": b"Bacula 1.0 immortal\n"}[program]
    texts = [name, "", "Full", "Backup", "LTO", "host", "bareos-sd", "23.0.0", "2026-11-01"]
    label = identity + b"\0" + struct.pack(">IqqQQ", 20, 1_700_000_000, 1_700_000_000, 0, 0)
    label += b"".join(text.encode() + b"\0" for text in texts)
    record = struct.pack(">iiI", -1, 0, len(label)) + label
    length = 24 + len(record)
    block = struct.pack(">III4sII", 0xDEADBEEF, length, 0, b"BB02", 1, 1_700_000_000) + record
    return [[block.ljust(64512, b"\0")], [b"\1" * 64512]]


def amanda(name: str) -> list[Blocks]:
    header = f"AMANDA: TAPESTART DATE 20261101120000 TAPE {name}\n\014\n".encode()
    return [[header.ljust(32768, b"\0")], [b"AMANDA: FILE 20261101 host /disk lev 0 comp .gz\n".ljust(32768, b"\0")]]


def proxmox(name: str) -> list[Blocks]:
    """A media label: block header (16 bytes), content header (48), and the label as JSON, in blocks of 256 KiB."""
    label = json.dumps({"uuid": UUID_TEXT, "label_text": name, "ctime": 1_700_000_000}).encode()
    content = bytes.fromhex("63ee149fcdf29b0c") + bytes.fromhex("2a05bf3cb030aa39") + UUID(UUID_TEXT).bytes
    content += struct.pack("<qIBBBB", 1_700_000_000, len(label), 0, 0, 0, 0) + label
    header = bytes.fromhex("dcbdafcaeba0a528") + b"\1" + len(content).to_bytes(3, "little") + bytes(4)
    return [[(header + content).ljust(262144, b"\0")]]


def gnu_tar() -> list[Blocks]:
    return [_cut(_run("tar", "-cf", "-", "-C", str(Path(__file__).parent), "__init__.py"), 10240)]


def bsdtar(format: str) -> list[Blocks]:
    return [
        _cut(_run("bsdtar", "--format", format, "-cf", "-", "-C", str(Path(__file__).parent), "__init__.py"), 10240)
    ]


def zstd() -> list[Blocks]:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x"))
    return [_cut(_run("zstd", "-c", data=out.getvalue()), 10240)]


@dataclass(frozen=True)
class Foreign:
    """A tape of another program."""

    make: Callable[[], list[Blocks]]
    #: What `identify` calls its format, and what it is called; empty: by its format and mark.
    format: str
    name: str


FOREIGN = {
    "ansi": Foreign(lambda: [[vol1("PAY123", "PAYROLL"), b"HDR1PAYROLL.DATA".ljust(80)]], "ANSI label", "PAY123"),
    "ltfs": Foreign(lambda: ltfs("LTF001", "holiday videos"), "LTFS", "holiday videos"),
    "taf": Foreign(lambda: ltfs("TP2026", "TP20261101"), "LTFS of TAF", "TP20261101"),
    "bareos": Foreign(lambda: bacula("Bareos", "Full-0001"), "Bareos", "Full-0001"),
    "bacula": Foreign(lambda: bacula("Bacula", "Weekly.7"), "Bacula", "Weekly.7"),
    "amanda": Foreign(lambda: amanda("DailySet1-01"), "AMANDA", "DailySet1-01"),
    "proxmox": Foreign(lambda: proxmox("PBS-0042"), "Proxmox Backup", "PBS-0042"),
    "tar": Foreign(gnu_tar, "tar", ""),
    "cpio newc": Foreign(lambda: bsdtar("newc"), "cpio", ""),
    "cpio odc": Foreign(lambda: bsdtar("odc"), "cpio", ""),
    "zstd": Foreign(zstd, "zstd", ""),
    "zeros": Foreign(lambda: [[bytes(4096)]], "unknown data", ""),
    "a filemark": Foreign(lambda: [[], [b"something"]], "unknown data", ""),
    "torn label of ours": Foreign(lambda: [[b"TAPEFS LABEL 1\n{" + bytes(100)]], "tapefs", ""),
}


def write(drive: Drive, files: list[Blocks]) -> None:
    """Write tape files to the threaded tape, from its beginning, each ended by a filemark."""
    drive.rewind()
    for blocks in files:
        for block in blocks:
            drive.write_block(block)
        drive.write_filemarks(1, sync=True)
