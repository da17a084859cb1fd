"""A virtual library served over iSCSI for the tests: changer at LUN 0, two drives behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from drivers.virtual.changer import VirtualChanger
from drivers.virtual.drive import VirtualDrive
from drivers.virtual.library import create_library
from drivers.vtl.changer import ChangerServer
from drivers.vtl.portal.chap import Credentials
from drivers.vtl.portal.target import Target
from drivers.vtl.tape import TapeServer
from tests.drivers.vtl.bench import MIB

NAME = "iqn.2026-01.org.tapefs:test"


@dataclass(frozen=True)
class Serving:
    """What is served, and where."""

    folder: Path
    host: str
    port: int
    changer: ChangerServer
    tapes: list[TapeServer]
    target: Target

    def url(self, lun: int | str, login: str = "") -> str:
        return f"iscsi://{login}{self.host}:{self.port}/{NAME}/{lun}"


@contextmanager
def serving(folder: Path, credentials: Credentials | None = None, tape_bytes: int = 32 * MIB) -> Iterator[Serving]:
    """Serve a library of three tapes and two drives; it is made if it is not there."""
    if not folder.exists():
        create_library(folder, tapes=3, tape_bytes=tape_bytes, drives=2, generation=9)
    tapes = [TapeServer(VirtualDrive(folder, number)) for number in range(2)]
    changer = ChangerServer(VirtualChanger(folder), tapes, "TESTLIB1")
    target = Target(NAME, {0: changer, 1: tapes[0], 2: tapes[1]}, credentials)
    host, port = target.start("127.0.0.1", 0)
    try:
        yield Serving(folder, host, port, changer, tapes, target)
    finally:
        target.stop()
        changer.close()
        for each in tapes:
            each.close()
