"""Makes the names file of a set from its index: a pure function of it, so it can be lost and made again. Blocking.

Memory does not depend on the set. Costs about a microsecond an entry.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from operator import add
from pathlib import Path
from struct import Struct, unpack
from tempfile import TemporaryFile
from typing import IO, NamedTuple

import zstandard

from catalog.crash import crash_point
from catalog.errors import Damaged, StorageFailed
from catalog.index.layer import Layer
from catalog.index.layout import NUMBER_KEY, Table, decode_names, decode_runs
from catalog.index.storage import claim_file, sync_folder
from catalog.names import layout
from catalog.names.layout import BlockRow, ChunkRow
from catalog.names.sorting import Sorter

#: Level 6 takes a tenth off the names of /usr, in 2.7 times the time.
_LEVEL = 3
#: Records that are grouped at a time.
_BATCH = 16 * 1024
_NUMBER_BYTES = NUMBER_KEY.size
#: What stands behind a name in a record to be sorted: NUL, number.
_SUFFIX = Struct(">xQ")
_RUN = Struct(">QQ")

LookAround = Callable[[], None]

_before_rename = crash_point("names.rename.before")
_after_rename = crash_point("names.rename.after")


def build_names(index: Path, path: Path, look_around: LookAround = lambda: None) -> None:
    """Make the names file of an index at `path`, replacing an older one; `look_around` is called often, and may raise.

    Raises Conflict when another process is at it, StorageFailed, and what opening the index raises.
    """
    temporary = path.with_name(path.name + ".new")
    layer = Layer(index)
    try:
        descriptor = claim_file(temporary)
        try:
            _install(layer, descriptor, temporary, path, look_around)
        finally:
            os.close(descriptor)
        _after_rename()
        sync_folder(path.parent)
    except OSError as error:
        raise StorageFailed(f"cannot write {path}: {error.strerror}", retryable=False) from error
    finally:
        layer.close()


def _install(layer: Layer, descriptor: int, temporary: Path, path: Path, look_around: LookAround) -> None:
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            _write(layer, file, path.parent, look_around)
            file.flush()
            os.fsync(descriptor)
            _before_rename()
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink()
        raise


def nameless_names(index: Path, look_around: LookAround = lambda: None) -> IO[bytes]:
    """Make the names file of an index without a name where temporary files go, and return it.

    For those who may not write beside the index. Raises as `build_names`, but for Conflict.
    """
    layer = Layer(index)
    try:
        file = TemporaryFile()  # noqa: SIM115 -- the caller closes it
        try:
            _write(layer, file, None, look_around)
            file.flush()
        except BaseException:
            file.close()
            raise
        return file
    except OSError as error:
        raise StorageFailed(f"cannot write a temporary file: {error.strerror}", retryable=False) from error
    finally:
        layer.close()


def _write(layer: Layer, file: IO[bytes], folder: Path | None, look_around: LookAround) -> None:
    """Write the whole file; `folder` is for what does not fit into memory."""
    compressor = zstandard.ZstdCompressor(level=_LEVEL)
    file.write(layout.HEAD.pack(layout.MAGIC, layout.VERSION))
    with Sorter(folder) as sorter:
        _collect_names(layer, sorter, look_around)
        blocks = []
        for block in _blocks(sorter, layer.meta.entries_first, file, compressor):
            look_around()
            blocks.append(block)
    with Sorter(folder) as sorter:
        _collect_runs(layer, sorter)
        chunks = list(_chunks(sorter, file, compressor))
    meta = layer.meta
    table = layout.encode_table(layout.Table(meta.set_id, meta.entries_first, meta.entries_end, blocks, chunks))
    file.write(table + layout.encode_tail(file.tell(), table))


# -- names -----------------------------------------------------------------------------------------------------------


def _collect_names(layer: Layer, sorter: Sorter, look_around: LookAround) -> None:
    """Put every name with its entry's number into the sorter: name, NUL, number in big endian."""
    expected: int = layer.meta.entries_first
    for key, value in layer.rows(Table.ENTRIES):
        first = NUMBER_KEY.unpack(key)[0]
        if first != expected:
            raise layer.missing(f"entry {expected}")
        look_around()
        names = decode_names(value)
        expected += len(names)
        sorter.add(list(map(add, names, map(_SUFFIX.pack, range(first, expected)))))
    if expected != layer.meta.entries_end:
        raise layer.missing(f"entry {expected}")


class _Names(NamedTuple):
    """Distinct names in order; how many entries bear each; the numbers of those, one name's after the other's."""

    names: list[bytes]
    counts: list[int]
    numbers: list[int]


def _grouped(sorter: Sorter) -> Iterator[_Names]:
    """Yield the names in pieces; a name is in one piece only."""
    left: list[bytes] = []
    for batch in sorter.sorted(_BATCH):
        records = left + batch
        last = records[-1][:-_NUMBER_BYTES]
        # What bears the last name may go on in the next batch.
        cut = len(records)
        while cut and records[cut - 1][:-_NUMBER_BYTES] == last:
            cut -= 1
        left = records[cut:]
        if cut:
            yield _group(records[:cut])
    if left:
        yield _group(left)


def _group(records: list[bytes]) -> _Names:
    counts = Counter([record[: -_SUFFIX.size] for record in records])
    packed = b"".join([record[-_NUMBER_BYTES:] for record in records])
    return _Names(list(counts), list(counts.values()), list(unpack(f">{len(records)}Q", packed)))


def _blocks(
    sorter: Sorter, entries_first: int, file: IO[bytes], compressor: zstandard.ZstdCompressor
) -> Iterator[BlockRow]:
    """Write the blocks; where they end depends on the names only."""
    waiting = _Names([], [], [])
    for piece in _grouped(sorter):
        waiting.names.extend(piece.names)
        waiting.counts.extend(piece.counts)
        waiting.numbers.extend(piece.numbers)
        ends = list(accumulate(len(name) + 1 for name in waiting.names))
        start, number = 0, 0
        while start < len(ends) and ends[-1] - (ends[start - 1] if start else 0) > layout.BLOCK_BYTES:
            limit = (ends[start - 1] if start else 0) + layout.BLOCK_BYTES
            stop = bisect_right(ends, limit, start)
            counts = waiting.counts[start:stop]
            end = number + sum(counts)
            cut = _Names(waiting.names[start:stop], counts, waiting.numbers[number:end])
            yield _write_block(cut, entries_first, file, compressor)
            start, number = stop, end
        del waiting.names[:start], waiting.counts[:start], waiting.numbers[:number]
    if waiting.names:
        yield _write_block(waiting, entries_first, file, compressor)


def _write_block(block: _Names, entries_first: int, file: IO[bytes], compressor: zstandard.ZstdCompressor) -> BlockRow:
    separator = layout.SEPARATOR
    text = separator + separator.join(block.names) + separator
    numbers = [number - entries_first for number in block.numbers]
    count_width, number_width = layout.width_of(max(block.counts)), layout.width_of(max(numbers))
    places = layout.to_planes(block.counts, count_width) + layout.to_planes(numbers, number_width)
    offset = file.tell()
    stored_names, stored_numbers = compressor.compress(text), compressor.compress(places)
    file.write(stored_names)
    file.write(stored_numbers)
    return BlockRow(
        offset, len(stored_names), len(stored_numbers), len(text), len(block.names), len(numbers), count_width,
        number_width, layout.digest(stored_names), layout.digest(stored_numbers), block.names[0],
    )  # fmt: skip


# -- directories -----------------------------------------------------------------------------------------------------


def _collect_runs(layer: Layer, sorter: Sorter) -> None:
    """Put the index's own runs into the sorter: first entry, directory; and check that each entry is in one."""
    own, total = layer.meta.entries_first, 0
    records = []
    for key, value in layer.rows(Table.DIRECTORIES):
        files_first, files, directories_first, directories = decode_runs(value)
        for first, count in ((files_first, files), (directories_first, directories)):
            if count and first >= own:
                total += count
                records.append(NUMBER_KEY.pack(first) + key)
        if len(records) >= _BATCH:
            sorter.add(records)
            records = []
    sorter.add(records)
    if total != layer.meta.entries_end - own:
        raise Damaged(
            f"the directories list {total} of {layer.meta.entries_end - own} entries that are its own", str(layer.path)
        )


def _chunks(sorter: Sorter, file: IO[bytes], compressor: zstandard.ZstdCompressor) -> Iterator[ChunkRow]:
    for records in sorter.sorted(layout.CHUNK_RUNS):
        firsts, directories = zip(*map(_RUN.unpack, records), strict=True)
        yield _write_chunk(firsts, directories, file, compressor)


def _write_chunk(
    firsts: Sequence[int], directories: Sequence[int], file: IO[bytes], compressor: zstandard.ZstdCompressor
) -> ChunkRow:
    base = firsts[0]
    stored = compressor.compress(
        layout.to_planes([first - base for first in firsts], _NUMBER_BYTES)
        + layout.to_planes(directories, _NUMBER_BYTES)
    )
    offset = file.tell()
    file.write(stored)
    return ChunkRow(base, offset, len(stored), len(firsts), layout.digest(stored))
