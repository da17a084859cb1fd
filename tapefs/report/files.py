"""The files of a report: written whole or not at all, the troubles line by line. Blocking; one writer for a set."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from catalog.ids import SetId
from tapefs.durable import replace_file
from tapefs.format.records import as_text
from tapefs.home import Home
from tapefs.report.records import RunReport, Trouble


def report_path(home: Home, set_id: SetId) -> Path:
    """Return the place of a report."""
    return home.reports / f"{set_id}.json"


def troubles_path(home: Home, set_id: SetId) -> Path:
    """Return the place of a set's troubles, those of all its runs."""
    return home.reports / f"{set_id}.troubles.jsonl"


def write_report(home: Home, report: RunReport) -> None:
    """Put it in place, durably. Raises OSError; then the older one is still there."""
    place = report_path(home, report.set_id)
    place.parent.mkdir(mode=0o700, exist_ok=True)
    replace_file(place, msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")


def read_report(home: Home, set_id: SetId) -> RunReport | None:
    """Return the report; None when there is none. Raises OSError, ValueError when it is damaged."""
    try:
        data = report_path(home, set_id).read_bytes()
    except FileNotFoundError:
        return None
    return msgspec.json.decode(data, type=RunReport)


class TroubleFile:
    """Takes troubles line by line. A line that a crash has torn is passed over when reading."""

    def __init__(self, home: Home, set_id: SetId) -> None:
        """Go on behind those of earlier runs. Raises OSError."""
        home.reports.mkdir(mode=0o700, exist_ok=True)
        #: How many there are.
        self.count = sum(1 for _ in read_troubles(home, set_id))
        self._file: BinaryIO = troubles_path(home, set_id).open("a+b")
        if self._file.tell():
            self._file.seek(-1, os.SEEK_END)
            if self._file.read(1) != b"\n":
                self._file.write(b"\n")
        self._encode = msgspec.json.Encoder().encode

    def add(self, path: bytes, reason: str) -> None:
        """Add one. Raises OSError."""
        text, raw = as_text(path)
        self._file.write(self._encode(Trouble(path=text, path_b64=raw, reason=reason)) + b"\n")
        self.count += 1

    def close(self) -> None:
        """Have them on disk. Raises OSError."""
        with self._file:
            self._file.flush()
            os.fsync(self._file.fileno())


def read_troubles(home: Home, set_id: SetId) -> Iterator[Trouble]:
    """Yield them in the order they were told. Raises OSError."""
    try:
        file = troubles_path(home, set_id).open("rb")
    except FileNotFoundError:
        return
    decode = msgspec.json.Decoder(Trouble).decode
    with file:
        for line in file:
            try:
                yield decode(line)
            except msgspec.DecodeError:
                continue  # Torn by a crash while it was written.
