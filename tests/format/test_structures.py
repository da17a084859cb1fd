"""LABEL, SET LABEL and HEADER: what is written is read, and nothing damaged is."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapefs.errors import BadStructure, NotBlank, TapeError, UsageError
from tapefs.format.records import join_sources
from tapefs.format.structures import (
    header_block,
    label_block,
    read_header,
    read_label,
    read_set_label,
    set_label_block,
)
from tests.format import examples

Read = Callable[[bytes], Any]

BLOCKS: list[tuple[bytes, Read]] = [
    (label_block(examples.LABEL), read_label),
    (set_label_block(examples.SET_LABEL), read_set_label),
    (header_block(examples.HEADER, 3), read_header),
]
READERS: list[Read] = [read_label, read_set_label, read_header]


@given(examples.labels)
def test_labels_come_back(label: Any) -> None:
    assert read_label(label_block(label)) == label


@given(examples.set_labels)
def test_set_labels_come_back(set_label: Any) -> None:
    assert read_set_label(set_label_block(set_label)) == set_label


@given(examples.headers)
def test_headers_come_back(header: Any) -> None:
    assert read_header(header_block(header, 3)) == header


@pytest.mark.parametrize(("block", "read"), BLOCKS)
def test_any_changed_byte_is_noticed(block: bytes, read: Read) -> None:
    for place in range(len(block)):
        for change in (1, 0x20, 0x80):
            damaged = bytearray(block)
            damaged[place] ^= change
            with pytest.raises(TapeError):
                read(bytes(damaged))


@pytest.mark.parametrize(("block", "read"), BLOCKS)
def test_cut_or_lengthened_blocks_are_refused(block: bytes, read: Read) -> None:
    for length in range(len(block)):
        with pytest.raises(TapeError):
            read(block[:length])
    for tail in (b"\0", b"\n", block):
        with pytest.raises(BadStructure):
            read(block + tail)


@pytest.mark.parametrize("read", READERS)
@given(block=st.binary(max_size=300) | st.binary(max_size=300).map(lambda b: b"TAPEFS HEADER 1.0\n" + b))
def test_random_bytes_raise_declared_errors_only(read: Read, block: bytes) -> None:
    with pytest.raises((BadStructure, NotBlank)):
        read(block)


@pytest.mark.parametrize("read", READERS)
def test_one_structure_is_not_taken_for_another(read: Read) -> None:
    for block, its_own in BLOCKS:
        if its_own is not read:
            with pytest.raises(BadStructure):
                read(block)


def _signed(body: bytes) -> bytes:
    """Return a block with a right checksum, as only somebody who knows the format makes it."""
    return body + b"blake2b-128 " + blake2b(body, digest_size=16).hexdigest().encode() + b"\n"


def test_an_unknown_major_is_refused_and_an_unknown_minor_read() -> None:
    body = label_block(examples.LABEL).rpartition(b"blake2b-128")[0]
    newer = _signed(body.replace(b"LABEL 1.0", b"LABEL 1.7").replace(b'"1.0"', b'"1.7","new":[1]'))
    assert read_label(newer).format == "1.7"
    with pytest.raises(BadStructure, match=r"format 2\.0"):
        read_label(_signed(body.replace(b"LABEL 1.0", b"LABEL 2.0").replace(b'"1.0"', b'"2.0"')))
    with pytest.raises(BadStructure):
        read_label(_signed(body.replace(b"LABEL 1.0", b"LABEL 1.7")))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("volume", '"../../etc"'),
        ("volume", '"6B1F5D3E-0C5B-4D0E-9D0A-3F4F1C2B7A10"'),
        ("block_size", "0"),
        ("block_size", "-1"),
        ("block_size", "99999999999999999999"),
        ("created_ns", "1.5"),
        ("label", "null"),
        ("label", "[" * 100_000),
        ("label", '"\\ud800"'),
    ],
)
def test_hostile_values_are_refused(key: str, value: str) -> None:
    body = label_block(examples.LABEL).rpartition(b"blake2b-128")[0]
    text, _, line = body[:-1].rpartition(b"\n")
    fields = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    fields[key] = msgspec.Raw(value.encode())
    with pytest.raises(BadStructure):
        read_label(_signed(text + b"\n" + msgspec.json.encode(fields) + b"\n"))


def test_foreign_labels_are_named() -> None:
    with pytest.raises(NotBlank, match="LTFS"):
        read_label(b"VOL1TAPE01L             LTFS".ljust(80))
    with pytest.raises(BadStructure, match="empty"):
        read_label(b"")


def test_sources_are_left_out_until_the_header_fits() -> None:
    sources = [f"/srv/{number:0200d}" for number in range(100)]
    block = header_block(msgspec.structs.replace(examples.HEADER, block_size=4096, sources=sources), 3)
    header = read_header(block)
    assert len(block) <= 4096
    assert header.sources == sources[: len(header.sources)]
    assert 0 < len(header.sources) == 101 - header.sources_omitted
    # One more would not have fitted.
    assert len(block) + 200 > 4096


def test_what_cannot_fit_or_be_is_refused() -> None:
    long = "x" * 300_000
    for make in (
        lambda: label_block(msgspec.structs.replace(examples.LABEL, label=long)),
        lambda: label_block(msgspec.structs.replace(examples.LABEL, block_size=512)),
        lambda: label_block(msgspec.structs.replace(examples.LABEL, label="\ud800")),
        lambda: set_label_block(msgspec.structs.replace(examples.SET_LABEL, volume_set=long)),
        lambda: header_block(msgspec.structs.replace(examples.HEADER, job_name=long), 3),
        lambda: header_block(msgspec.structs.replace(examples.HEADER, codec="rot13"), 3),
    ):
        with pytest.raises(UsageError):
            make()
    with pytest.raises(ValueError, match="volume"):
        label_block(msgspec.structs.replace(examples.LABEL, volume=examples.VOLUME + "x"))


def test_sources_of_any_bytes_survive() -> None:
    """`os.fsdecode` leaves surrogates where a path is not UTF-8; JSON cannot hold them."""
    header = msgspec.structs.replace(examples.HEADER, sources=["/a", "/b\udcff", "/c"], sources_b64=[])
    assert join_sources(read_header(header_block(header, 3))) == [b"/a", b"/c", b"/b\xff"]


def test_an_encrypted_segment_names_no_source() -> None:
    block = header_block(msgspec.structs.replace(examples.HEADER, encryption="age"), 3)
    assert read_header(block).sources_omitted == 3
    assert b"/usr/share" not in block


def test_structures_begin_with_ascii_text_and_the_commands() -> None:
    block = header_block(examples.HEADER, 17)
    text = block.split(b"\n\n")[0].decode("ascii")
    for command in ("mt -f /dev/nst0 setblk 0", "mt -f /dev/nst0 fsf 17", "dd if=/dev/nst0 bs=1M | zstd -dc | tar "):
        assert command in text
    assert "--xattrs --xattrs-include='*' --acls --numeric-owner -xpf -" in text
    large = msgspec.structs.replace(examples.HEADER, block_size=4 << 20)
    assert b"bs=4194304" in header_block(large, 17)


@pytest.mark.parametrize(("block", "read"), BLOCKS)
def test_the_checksum_is_what_docs_format_says(block: bytes, read: Read) -> None:
    said = subprocess.run("head -n -1 | b2sum -l 128", shell=True, input=block, capture_output=True, check=True).stdout
    assert block.splitlines()[-1].split() == [b"blake2b-128", said.split()[0]]
