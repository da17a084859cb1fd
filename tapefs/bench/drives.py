"""How fast blocks go to a drive behind iSCSI and come back: `tapefs vtl` in another process, on the loopback. Blocking.

Beside it a plain copy through a socket to another process, by blocks of the same size: what the kernel makes of it.
The library lies in memory where there is a file system of that kind, so that no disk is measured.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from drivers.config import LibraryConfig
from drivers.interface import Drive
from drivers.registry import open_changer, open_drive
from tapefs.bench.stand import Result, Stand, tapefs
from tapefs.home import Home, open_home
from tapefs.setup_home import NewHome, create_home

#: What an LTO-9 drive takes and gives.
NATIVE_BYTES_S = 400_000_000
_BLOCKS = (256 * 1024, 512 * 1024, 1024 * 1024)
_BYTES = 256 * 1024**2
_TURNS = 5
_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
_MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Rates:
    """Bytes a second, the median of the turns."""

    write: float
    read: float
    socket: float


def run(stand: Stand) -> list[Result]:
    """Measure blocks of several sizes, turn by turn."""
    with _folder(stand) as folder, _served(_home(folder)) as library:
        changer = open_changer(library)
        changer.load(0, 0)
        changer.close()
        drive = open_drive(library, 0)
        try:
            drive.load(compress=False)
            return [result for size in _BLOCKS for result in _results(size, _measure(drive, size))]
        finally:
            drive.close()


@contextmanager
def _folder(stand: Stand) -> Iterator[Path]:
    """Yield a folder in memory, or in the stand where there is none with room."""
    if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > 4 * _BYTES:
        with tempfile.TemporaryDirectory(prefix="tapefs-bench.", dir=_MEMORY) as folder:
            yield Path(folder)
    else:
        yield stand.folder


def _home(folder: Path) -> Home:
    path = folder / "served"
    create_home(NewHome(path=path, tapes=1, tape_bytes=4 * _BYTES), time.time_ns())
    return open_home(path)


@contextmanager
def _served(home: Home) -> Iterator[LibraryConfig]:
    """Serve the library of a state folder; yield how to reach it. Raises RuntimeError when that does not work."""
    command = [*tapefs(home, "vtl"), "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        url = next((line.strip() for line in process.stdout or () if line.startswith("  iscsi://")), "")
        if not url:
            raise RuntimeError(f"tapefs vtl does not serve: {process.communicate()[1]}")
        unit = url.rpartition("/")[0]
        notes = home.path / "notes"
        notes.mkdir()
        yield LibraryConfig(driver="iscsi", folder=notes, drives=(f"{unit}/1",), changer=f"{unit}/0")
    finally:
        process.terminate()
        process.communicate()


def _measure(drive: Drive, size: int) -> Rates:
    block, count = os.urandom(size), _BYTES // size
    writes, reads, sockets = [], [], []
    for _ in range(_TURNS):
        drive.rewind()
        begun_s = time.perf_counter()
        for _ in range(count):
            drive.write_block(block)
        drive.write_filemarks(1, sync=True)
        writes.append(_BYTES / (time.perf_counter() - begun_s))
        sockets.append(_BYTES / _socket_copy_s(block, count))
        drive.rewind()
        buffer = memoryview(bytearray(size))
        begun_s = time.perf_counter()
        for _ in range(count):
            if drive.read_into(buffer) != size:
                raise RuntimeError("a block came back shorter")
        reads.append(_BYTES / (time.perf_counter() - begun_s))
        if buffer != block:
            raise RuntimeError("a block came back changed")
    return Rates(median(writes), median(reads), median(sockets))


def _socket_copy_s(block: bytes, count: int) -> float:
    """Send blocks to another process and wait until it says that it has them all."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        child = multiprocessing.get_context("spawn").Process(target=_take, args=(port, len(block), count))
        child.start()
        with listener.accept()[0] as connection:
            begun_s = time.perf_counter()
            for _ in range(count):
                connection.sendall(block)
            connection.recv(1)
            took_s = time.perf_counter() - begun_s
        child.join()
        return took_s


def _take(port: int, size: int, count: int) -> None:
    buffer = memoryview(bytearray(size))
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for _ in range(count):
            got = 0
            while got < size:
                got += connection.recv_into(buffer[got:])
        connection.send(b".")


def _results(size: int, rates: Rates) -> Iterator[Result]:
    name = f"{size // 1024} KiB blocks"
    print(
        f"drives: {name}: written {rates.write / _MB:.0f} MB/s, read {rates.read / _MB:.0f} MB/s,"
        f" a socket copy {rates.socket / _MB:.0f} MB/s"
    )
    for way, rate in (("written to", rates.write), ("read from", rates.read)):
        yield Result(
            f"{name} {way} a drive over iSCSI",
            f"{rate / _MB:.0f} MB/s",
            "a copy through a loopback socket",
            f"{rates.socket / _MB:.0f} MB/s",
            rate / rates.socket,
            f"≥ {NATIVE_BYTES_S // _MB} MB/s",
            rate >= NATIVE_BYTES_S,
        )
