"""Reading every record of an index, and checking how they hang together.

`python -m catalog.index.verify` does so for the paths on its standard input as a program of its own, one JSON line
each, because the process dies (SIGBUS) where the disk cannot read a page of the map.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from catalog.errors import CatalogError, Damaged
from catalog.ids import DirectoryNo
from catalog.index.layer import Layer
from catalog.index.layout import Table
from catalog.index.reader import IndexReader


def problems(path: Path) -> list[str]:
    """Return a sentence for everything that is wrong with the index and its connection to those it builds on.

    A list that is not empty may be short of further problems: what cannot be read hides what is behind it.
    """
    try:
        return [*_records(path), *_tree(path)]
    except CatalogError as error:
        return [str(error)]


def _records(path: Path) -> Iterator[str]:
    """Every record is what was sealed."""
    layer = Layer(path)
    try:
        for table in Table:
            try:
                for _ in layer.rows(table):
                    pass
            except Damaged as error:
                yield str(error)
    finally:
        layer.close()


def _tree(path: Path) -> Iterator[str]:
    """The listings are whole, and add up to what the index says that it shows."""
    with IndexReader(path) as index:
        directories = entries = files = count_bytes = 0
        for directory in index.directories_from(DirectoryNo(0), index.directories_end):
            directories += 1
            files += directory.files_count
            entries += directory.files_count + directory.directories_count
            count_bytes += directory.files_bytes
            for first, count in (
                (directory.files_first, directory.files_count),
                (directory.directories_first, directory.directories_count),
            ):
                if count and not index.has_run(first, count):
                    yield f"the listing of directory {directory.number} is not all there"
        if (entries, directories, files, count_bytes) != index.totals:
            yield f"its listings have {(entries, directories, files, count_bytes)}, where it says {tuple(index.totals)}"
        for row in index.segments():
            frames = sum(1 for _ in index.frames(row.number))
            if frames != row.frames:
                yield f"segment {row.segment_id} has {frames} frames, where {row.frames} are told"


def main() -> int:
    """Answer for each path on standard input; return 0."""
    for line in sys.stdin.buffer:
        path = Path(os.fsdecode(line.rstrip(b"\n")))
        print(json.dumps(problems(path)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
