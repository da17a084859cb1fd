"""The container of a `.7z`: what stands before and behind the packed blocks, as 7-Zip describes its format.

    signature header     32 bytes: where the end header is, which is known last
    packed blocks        LZMA2 streams, each of one or more whole members
    packed end header    sizes, CRCs, names, times and attributes of all members
    end header           where the packed one is, and how to unpack it

What is said about members is kept in columns, and names in a file: some 30 bytes of memory a member. For one thread.
"""

from __future__ import annotations

import lzma
import stat
import struct
import zlib
from array import array
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import IO

SIGNATURE_BYTES = 32

_SIGNATURE = b"7z\xbc\xaf\x27\x1c\x00\x04"
_START = struct.Struct("<QQI")
_U32 = struct.Struct("<I")

#: One coder with a property of one byte, LZMA2.
_LZMA2_CODER = b"\x01\x21\x21\x01"
_ALL_DEFINED = b"\x01"
#: The values follow here, not in another stream.
_INLINE = b"\x00"

#: 100 ns between 1601 and 1970.
_EPOCH = 116_444_736_000_000_000
_LAST_FILETIME = 2**64 - 1
_ATTRIBUTE_DIRECTORY = 0x10
_ATTRIBUTE_ARCHIVE = 0x20
#: The upper 16 bits hold st_mode.
_ATTRIBUTE_UNIX = 0x8000

_HEADER_PRESET = 1
_HEADER_DICTIONARY_BYTES = 1 << 20
_READ_BYTES = 1 << 20


class _Property(IntEnum):
    END = 0x00
    HEADER = 0x01
    MAIN_STREAMS = 0x04
    FILES = 0x05
    PACK = 0x06
    UNPACK = 0x07
    SUBSTREAMS = 0x08
    SIZE = 0x09
    CRC = 0x0A
    FOLDER = 0x0B
    UNPACK_SIZE = 0x0C
    STREAMS = 0x0D
    EMPTY_STREAM = 0x0E
    EMPTY_FILE = 0x0F
    NAMES = 0x11
    MTIME = 0x14
    ATTRIBUTES = 0x15
    ENCODED_HEADER = 0x17


class ArchiveIndex:
    """What the end header of an archive says; blocks and members are told in their order."""

    def __init__(self, names: IO[bytes], dictionary_bytes: int) -> None:
        """`names` is an empty file that may be read and written; no frame needs a larger dictionary than that."""
        self._names = names
        self._dictionary = dictionary_property(dictionary_bytes)
        #: Of blocks: packed and plain length, members with content.
        self._packed = array("Q")
        self._plain = array("Q")
        self._contents = array("Q")
        self._in_blocks = 0
        #: Of members with content: length, CRC-32.
        self._sizes = array("Q")
        self._crcs = array("I")
        #: Of members: do they have no content, are they directories; FILETIME, attributes.
        self._empty = bytearray()
        self._directories = bytearray()
        self._mtimes = array("Q")
        self._attributes = array("I")

    def add_block(self, packed_bytes: int, plain_bytes: int) -> None:
        """A block ends; it holds all members with content since the block before, one or more."""
        self._packed.append(packed_bytes)
        self._plain.append(plain_bytes)
        self._contents.append(len(self._sizes) - self._in_blocks)
        self._in_blocks = len(self._sizes)

    def add_member(self, path: bytes, mode: int, mtime_ns: int, content: tuple[int, int] | None) -> None:
        """A member; `content` is its length and CRC-32, None when it has none (a directory, an empty file)."""
        is_directory = stat.S_ISDIR(mode)
        self._names.write(name_text(path).encode("utf-16-le") + b"\0\0")
        self._empty.append(content is None)
        self._directories.append(is_directory)
        self._mtimes.append(min(max(mtime_ns // 100 + _EPOCH, 0), _LAST_FILETIME))
        kind = _ATTRIBUTE_DIRECTORY if is_directory else _ATTRIBUTE_ARCHIVE
        self._attributes.append((mode & 0xFFFF) << 16 | _ATTRIBUTE_UNIX | kind)
        if content is not None:
            self._sizes.append(content[0])
            self._crcs.append(content[1])

    def closing(self) -> Iterator[bytes]:
        """Yield what stands behind the packed blocks; ends with the end header itself, in one piece."""
        packed = _Measured()
        compressor = lzma.LZMACompressor(lzma.FORMAT_RAW, filters=_header_filters())
        plain = _Measured()
        for piece in self._header():
            plain.add(piece)
            yield packed.add(compressor.compress(piece))
        yield packed.add(compressor.flush())
        yield b"".join(
            (
                _byte(_Property.ENCODED_HEADER),
                _pack_info(sum(self._packed), [packed.bytes]),
                _unpack_info([plain.bytes], dictionary_property(_HEADER_DICTIONARY_BYTES), plain.crc),
                _byte(_Property.END),
            )
        )

    def _header(self) -> Iterator[bytes]:
        yield _byte(_Property.HEADER)
        if self._packed:
            yield _byte(_Property.MAIN_STREAMS)
            yield _pack_info(0, self._packed)
            yield _unpack_info(self._plain, self._dictionary, None)
            yield from self._substreams()
            yield _byte(_Property.END)
        if self._empty:
            yield from self._files()
        yield _byte(_Property.END)

    def _substreams(self) -> Iterator[bytes]:
        yield _byte(_Property.SUBSTREAMS)
        yield _byte(_Property.STREAMS) + b"".join(map(number, self._contents))
        yield _byte(_Property.SIZE)
        first = 0
        for count in self._contents:
            # The last of a block is what is left of it.
            yield b"".join(map(number, self._sizes[first : first + count - 1]))
            first += count
        yield _byte(_Property.CRC) + _ALL_DEFINED + _little_endian(self._crcs)
        yield _byte(_Property.END)

    def _files(self) -> Iterator[bytes]:
        count = len(self._empty)
        yield _byte(_Property.FILES) + number(count)
        if any(self._empty):
            empty_files = bytes(
                not directory for empty, directory in zip(self._empty, self._directories, strict=True) if empty
            )
            yield _property(_Property.EMPTY_STREAM, _bits(self._empty))
            yield _property(_Property.EMPTY_FILE, _bits(empty_files))
        yield from self._name_pieces()
        yield _property(_Property.MTIME, _ALL_DEFINED + _INLINE + _little_endian(self._mtimes))
        yield _property(_Property.ATTRIBUTES, _ALL_DEFINED + _INLINE + _little_endian(self._attributes))
        yield _byte(_Property.END)

    def _name_pieces(self) -> Iterator[bytes]:
        length = self._names.tell()
        yield _byte(_Property.NAMES) + number(length + 1) + _INLINE
        self._names.seek(0)
        while piece := self._names.read(_READ_BYTES):
            yield piece


def signature_header(end_header_place: int, end_header: bytes) -> bytes:
    """Return the first 32 bytes of an archive whose end header lies at that place, counted from the archive's start."""
    start = _START.pack(end_header_place - SIGNATURE_BYTES, len(end_header), zlib.crc32(end_header))
    return _SIGNATURE + _U32.pack(zlib.crc32(start)) + start


def name_text(path: bytes) -> str:
    """Return a path as 7z can hold it: names are UTF-16 there.

    Bytes that are not UTF-8 become `%` and two digits, and so do backslashes, which some programs take for slashes.
    """
    path = path.replace(b"\\", b"%5C")
    try:
        return path.decode()
    except UnicodeDecodeError:
        text = path.decode("utf-8", "surrogateescape")
        return "".join(f"%{ord(char) - 0xDC00:02X}" if 0xDC80 <= ord(char) <= 0xDCFF else char for char in text)


def number(value: int) -> bytes:
    """Return a number as 7z writes it: leading ones of the first byte count the bytes that follow."""
    for extra in range(8):
        if value < 1 << 7 * (extra + 1):
            first = 0xFF00 >> extra & 0xFF | value >> 8 * extra
            return bytes((first,)) + (value & (1 << 8 * extra) - 1).to_bytes(extra, "little")
    return b"\xff" + value.to_bytes(8, "little")


def dictionary_property(size_bytes: int) -> int:
    """Return LZMA2's property for the smallest dictionary of at least that size."""
    return next(each for each in range(40) if (2 | each & 1) << each // 2 + 11 >= size_bytes)


class _Measured:
    """Length and CRC-32 of what passes."""

    def __init__(self) -> None:
        self.bytes = 0
        self.crc = 0

    def add(self, piece: bytes) -> bytes:
        self.bytes += len(piece)
        self.crc = zlib.crc32(piece, self.crc)
        return piece


def _header_filters() -> list[dict[str, int]]:
    return [{"id": lzma.FILTER_LZMA2, "preset": _HEADER_PRESET, "dict_size": _HEADER_DICTIONARY_BYTES}]


def _pack_info(place: int, sizes: Iterable[int]) -> bytes:
    """Say where packed streams lie, one behind the other from `place` behind the signature header."""
    numbers = [number(size) for size in sizes]
    return b"".join(
        (
            _byte(_Property.PACK),
            number(place),
            number(len(numbers)),
            _byte(_Property.SIZE),
            *numbers,
            _byte(_Property.END),
        )
    )


def _unpack_info(sizes: Iterable[int], dictionary: int, crc: int | None) -> bytes:
    """Say how blocks are unpacked and how long they are then; with the CRC-32 of the only one."""
    numbers = [number(size) for size in sizes]
    coder = _LZMA2_CODER + bytes((dictionary,))
    checked = b"" if crc is None else _byte(_Property.CRC) + _ALL_DEFINED + _U32.pack(crc)
    return b"".join(
        (
            _byte(_Property.UNPACK),
            _byte(_Property.FOLDER),
            number(len(numbers)),
            _INLINE,
            coder * len(numbers),
            _byte(_Property.UNPACK_SIZE),
            *numbers,
            checked,
            _byte(_Property.END),
        )
    )


def _byte(value: int) -> bytes:
    return bytes((value,))


def _property(name: _Property, value: bytes) -> bytes:
    return _byte(name) + number(len(value)) + value


def _bits(flags: bytes | bytearray) -> bytes:
    """Return a vector of bits, the first one highest."""
    padded = bytes(flags) + bytes(-len(flags) % 8)
    return int(padded.translate(_DIGITS), 2).to_bytes(len(padded) // 8, "big") if padded else b""


def _little_endian(column: array[int]) -> bytes:
    if struct.pack("=H", 1) != struct.pack("<H", 1):
        column = column[:]
        column.byteswap()
    return column.tobytes()


#: 0 and 1 to the digits.
_DIGITS = bytes.maketrans(b"\0\1", b"01")
