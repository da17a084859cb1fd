"""LABEL, SET LABEL and HEADER: one block each of text for people, one line of JSON, one line with a checksum.

    TAPEFS LABEL 1.0
    <lines for whoever finds the tape>

    {"format":"1.0",...}
    blake2b-128 <hex of everything before this line>

The texts name only programs that every Linux system has. Pure functions; any thread may use them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import blake2b
from typing import TypeVar

import msgspec

from tapefs.codecs import codec_of_format
from tapefs.errors import BadStructure, NotBlank, UsageError
from tapefs.format import texts
from tapefs.format.identify import foreign_format, is_ours
from tapefs.format.records import FORMAT_MAJOR, Header, Label, SetLabel, as_text

#: What a label may say; every structure but the header fits the smallest.
BLOCK_SIZES = range(4096, (16 << 20) + 1)

_CHECKSUM = b"blake2b-128 "
_MAGIC = re.compile(rb"TAPEFS (LABEL|SET LABEL|HEADER) ([0-9]{1,4})\.([0-9]{1,4})\n")

_Structure = TypeVar("_Structure", Label, SetLabel, Header)


def label_block(label: Label) -> bytes:
    """Return tape file 0. Raises UsageError for a text that fits no block or a block size not in BLOCK_SIZES."""
    if label.block_size not in BLOCK_SIZES:
        raise UsageError(
            f"a block size of {label.block_size} bytes is not possible: use {BLOCK_SIZES[0]} to {BLOCK_SIZES[-1]}"
        )
    return _fitting(_block(b"LABEL", texts.label_text(label), label), label.block_size)


def set_label_block(s: SetLabel) -> bytes:
    """Return tape file 1. Raises UsageError when a text is too long: it fits the smallest block size."""
    return _fitting(_block(b"SET LABEL", texts.set_label_text(s), s), BLOCK_SIZES[0])


def header_block(h: Header, payload_file: int) -> bytes:
    """Return the HEADER of a segment whose PAYLOAD is tape file `payload_file`, counted from 0 at its start.

    Sources that do not fit the block are left out, the last ones first, and counted in `sources_omitted`; an encrypted
    segment names none, because headers are not encrypted. Raises UsageError for an unknown format of payloads, and when
    it does not fit the block size even then.
    """
    h = _with_clean_sources(h)
    codec = codec_of_format(h.codec)
    if h.encryption is not None:
        h = _with_sources(h, 0)
    block = _block(b"HEADER", texts.header_text(h, payload_file, codec), h)
    if len(block) > h.block_size:
        h = _shortened(h, lambda x: len(_block(b"HEADER", texts.header_text(x, payload_file, codec), x)))
        block = _block(b"HEADER", texts.header_text(h, payload_file, codec), h)
    return _fitting(block, h.block_size)


def read_label(block: bytes) -> Label:
    """Return what a LABEL says.

    Raises BadStructure when it is torn, damaged, of an unknown major version or another structure of ours, NotBlank
    when it is somebody else's data (the message names the format).
    """
    foreign = foreign_format(block)
    if foreign is not None:
        raise NotBlank(f"the tape holds data of another program ({foreign}): erase it first, or use another tape")
    label = _read(block, b"LABEL", Label)
    if label.block_size not in BLOCK_SIZES:
        raise BadStructure(f"the LABEL on tape names an impossible block size, {label.block_size}")
    return label


def read_set_label(block: bytes) -> SetLabel:
    """Return what a SET LABEL says. Raises BadStructure when it is not a whole one of a known major version."""
    return _read(block, b"SET LABEL", SetLabel)


def read_header(block: bytes) -> Header:
    """Return what a HEADER says. Raises BadStructure when it is not a whole one of a known major version."""
    return _read(block, b"HEADER", Header)


def _block(magic: bytes, text: str, structure: Label | SetLabel | Header) -> bytes:
    """Return the whole block. The JSON is checked as when it is read: what cannot be read must not be written."""
    try:
        written = msgspec.json.encode(structure)
        msgspec.json.decode(written, type=type(structure))
    except UnicodeEncodeError as error:
        raise UsageError(f"a name in the {magic.decode('ascii')} is not valid text: {error}") from error
    except msgspec.ValidationError as error:
        raise ValueError(f"the {magic.decode('ascii')} is not one: {error}") from error
    body = b"TAPEFS %b %b\n%b\n%b\n" % (magic, structure.format.encode("ascii"), text.encode("ascii"), written)
    return body + _checksum_line(body)


def _checksum_line(body: bytes) -> bytes:
    return _CHECKSUM + blake2b(body, digest_size=16).hexdigest().encode("ascii") + b"\n"


def _fitting(block: bytes, block_size: int) -> bytes:
    if len(block) > block_size:
        raise UsageError(f"a structure of {len(block)} bytes does not fit a block of {block_size}: use shorter names")
    return block


def _with_clean_sources(h: Header) -> Header:
    """Move sources with undecodable bytes (as `os.fsdecode` gives them) to `sources_b64`: JSON cannot hold them."""
    split = [as_text(source.encode("utf-8", "surrogateescape")) for source in h.sources]
    raw = [raw for _, raw in split if raw]
    if not raw:
        return h
    return msgspec.structs.replace(h, sources=[text for text, raw in split if not raw], sources_b64=h.sources_b64 + raw)


def _with_sources(h: Header, keep: int) -> Header:
    """Keep the first sources only and count the others."""
    total = len(h.sources) + len(h.sources_b64)
    return msgspec.structs.replace(
        h,
        sources=h.sources[:keep],
        sources_b64=h.sources_b64[: max(0, keep - len(h.sources))],
        sources_omitted=h.sources_omitted + max(0, total - keep),
    )


def _shortened(h: Header, length: Callable[[Header], int]) -> Header:
    """Return the header with as many sources as fit, by bisection; with none when nothing fits."""
    low, high = 0, len(h.sources) + len(h.sources_b64)
    while low < high:
        middle = (low + high + 1) // 2
        if length(_with_sources(h, middle)) <= h.block_size:
            low = middle
        else:
            high = middle - 1
    return _with_sources(h, low)


def _read(block: bytes, magic: bytes, kind: type[_Structure]) -> _Structure:
    """Check the frame of a structure and decode its JSON."""
    name = magic.decode("ascii")
    found = _MAGIC.match(block)
    if found is None or found[1] != magic:
        what = found[1].decode("ascii") if found else "damaged" if is_ours(block) else foreign_format(block) or "empty"
        raise BadStructure(f"there is no {name} where one should be on tape ({what})")
    version = f"{int(found[2])}.{int(found[3])}"
    if int(found[2]) != FORMAT_MAJOR:
        raise BadStructure(f"the {name} is of format {version}, which this program does not know: use a newer one")
    body, _, _ = block[:-1].rpartition(b"\n")
    if block != body + b"\n" + _checksum_line(body + b"\n"):
        raise BadStructure(f"the {name} on tape is torn or damaged: its checksum is wrong")
    return _decoded(body, name, version, kind)


def _decoded(body: bytes, name: str, version: str, kind: type[_Structure]) -> _Structure:
    """Decode the last line of a body whose checksum is right."""
    try:
        structure = msgspec.json.decode(body[body.rfind(b"\n") + 1 :], type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadStructure(f"the {name} on tape does not say what it should: {error}") from error
    if structure.format != version:
        raise BadStructure(f"the {name} on tape says format {version} and {structure.format}")
    return structure
