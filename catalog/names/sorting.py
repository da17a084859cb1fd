"""Sorts any number of byte strings in little memory: sorted runs go to a nameless file and are merged. Blocking."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO

import msgspec

#: Records in memory: about 25 MB of them.
RUN_RECORDS = 256 * 1024
#: Records of each run that are in memory while runs are merged.
_PIECE_RECORDS = 1024

_decoder = msgspec.msgpack.Decoder(list[bytes])


class Sorter:
    """Takes records, then gives them back in order; use it as a context manager. May raise OSError."""

    def __init__(self, folder: Path | None, run_records: int = RUN_RECORDS) -> None:
        """Runs that do not fit into memory go to `folder`; None means where temporary files go."""
        self._folder = folder
        self._limit = run_records
        self._records: list[bytes] = []
        self._file: IO[bytes] | None = None
        #: Of every run the places of its pieces.
        self._runs: list[list[tuple[int, int]]] = []

    def __enter__(self) -> Sorter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, records: list[bytes]) -> None:
        """Take records."""
        self._records += records
        if len(self._records) >= self._limit:
            self._spill()

    def sorted(self, batch: int) -> Iterator[list[bytes]]:
        """Yield all records in order, `batch` at a time; only once."""
        self._records.sort()
        if not self._runs:
            for start in range(0, len(self._records), batch):
                yield self._records[start : start + batch]
            return
        merged = heapq.merge(*map(self._run, self._runs), self._records)
        while records := list(islice(merged, batch)):
            yield records

    def _spill(self) -> None:
        if self._file is None:
            self._file = TemporaryFile(dir=self._folder)  # noqa: SIM115 -- closed by __exit__
        self._records.sort()
        run = []
        for start in range(0, len(self._records), _PIECE_RECORDS):
            piece = msgspec.msgpack.encode(self._records[start : start + _PIECE_RECORDS])
            run.append((self._file.tell(), len(piece)))
            self._file.write(piece)
        self._runs.append(run)
        self._records = []

    def _run(self, pieces: list[tuple[int, int]]) -> Iterator[bytes]:
        if self._file is None:
            raise AssertionError("there are runs, but no file that holds them")
        for place, length in pieces:
            self._file.seek(place)
            yield from _decoder.decode(self._file.read(length))
