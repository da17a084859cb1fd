"""The age format: `age` reads what we write and we what it writes; whatever is wrong has an error of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapefs.errors import BadStructure, KeyMissing, UsageError, WrongPassphrase
from tapefs.keys import age, bech32
from tapefs.keys.chunks import (
    CHUNK_BYTES,
    SEALED_BYTES,
    Places,
    Sealer,
    Unsealer,
    sealed,
    unsealed,
    unsealed_with_passphrase,
)
from tapefs.keys.identity import Identity, Recipient
from tests.keys.programs import decrypted, encrypted, key_file

ME = Identity.new()
CLEAR = age.Clear("payload", "7e5d3a60-0000-4000-8000-000000000000", ME.fingerprint)
#: Nothing, a part of a chunk, whole chunks and a byte to either side.
LENGTHS = [0, 1, 1000, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 5 * CHUNK_BYTES + 77]


class Sink:
    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes | memoryview) -> None:
        self.data += data


@pytest.mark.parametrize("length", LENGTHS)
def test_age_reads_what_we_write_and_we_what_it_writes(tmp_path: Path, length: int) -> None:
    """Also with our own line in the header, which it passes over."""
    data = os.urandom(length)
    ours = sealed(data, age.new_opening(ME.recipient, CLEAR))
    assert decrypted(ours, key_file(tmp_path, ME)) == data
    assert b"".join(unsealed([ours], [ME])) == data
    theirs = encrypted(data, ME.recipient)
    assert b"".join(unsealed([theirs[:50], theirs[50:]], [Identity.new(), ME])) == data
    assert Places(len(age.open_with(theirs, [ME]).preamble), len(theirs)).plain_bytes == length


def test_keys_of_age_keygen_are_ours(tmp_path: Path) -> None:
    """The same recipient comes of the same secret; the fingerprint is what the docs say."""
    made = tmp_path / "made.txt"
    subprocess.run(["age-keygen", "-o", made], check=True, capture_output=True)
    identity = Identity.parse(made.read_text().splitlines()[-1])
    public = subprocess.run(["age-keygen", "-y", made], check=True, capture_output=True, text=True).stdout
    assert identity.recipient.text == public.strip()
    command = f"age-keygen -y {made} | tr -d '\\n' | sha256sum | cut -c-32"
    shown = subprocess.run(["sh", "-c", command], check=True, capture_output=True, text=True).stdout
    assert shown.strip() == identity.fingerprint
    assert Recipient.parse(public) == identity.recipient
    assert "SECRET" not in repr(identity)
    assert identity.secret.hex() not in repr(identity)


def test_passphrase_and_back() -> None:
    """With little work, for the test; a wrong passphrase is told as one."""
    data = os.urandom(100)
    wrapped = sealed(data, age.new_passphrase_opening(b"correct horse", log_n=4))
    assert unsealed_with_passphrase(wrapped, b"correct horse") == data
    with pytest.raises(WrongPassphrase):
        unsealed_with_passphrase(wrapped, b"wrong horse")
    with pytest.raises(BadStructure, match="passphrase"):
        unsealed_with_passphrase(sealed(data, age.new_opening(ME.recipient)), b"correct horse")
    with pytest.raises(KeyMissing):
        next(unsealed([wrapped], [ME]))


def test_a_passphrase_may_not_take_all_day() -> None:
    """A file from somewhere could ask for years of work."""
    wrapped = sealed(b"x", age.new_passphrase_opening(b"correct horse", log_n=4))
    place = wrapped.index(b" 4\n")
    with pytest.raises(BadStructure, match="more work"):
        unsealed_with_passphrase(wrapped[:place] + b" 40\n" + wrapped[place + 3 :], b"correct horse")


def test_what_is_in_the_clear_is_told_without_a_key() -> None:
    """And it is authentic: another uuid there, and the file does not open."""
    ours = sealed(b"something", age.new_opening(ME.recipient, CLEAR))
    assert age.parse(ours).clear == CLEAR
    assert age.parse(encrypted(b"x", ME.recipient)).clear is None
    other = ours.replace(b"7e5d3a60", b"7e5d3a61")
    with pytest.raises(BadStructure, match="HMAC"):
        next(unsealed([other], [ME]))


def test_a_missing_key_is_named() -> None:
    """With the fingerprint, so that it can be looked for."""
    ours = sealed(b"something", age.new_opening(ME.recipient, CLEAR))
    with pytest.raises(KeyMissing, match=ME.fingerprint) as caught:
        next(unsealed([ours], [Identity.new()]))
    assert caught.value.fingerprint == ME.fingerprint


def test_every_flipped_bit_of_a_header_is_found() -> None:
    """Damage, or a key that is not there: never other bytes."""
    ours = sealed(b"something", age.new_opening(ME.recipient, CLEAR))
    begin = age.parse(ours).length
    for place in range(begin):
        for bit in (0x01, 0x20):
            other = bytearray(ours)
            other[place] ^= bit
            with pytest.raises((BadStructure, KeyMissing)):
                b"".join(unsealed([bytes(other)], [ME]))


@pytest.mark.parametrize("length", [CHUNK_BYTES // 2, 3 * CHUNK_BYTES, 3 * CHUNK_BYTES + 5])
def test_what_is_cut_short_or_changed_is_found(length: int) -> None:
    """Chunks that are cut off, swapped, doubled, or have a flipped bit; what comes before is authentic."""
    data = os.urandom(length)
    ours = sealed(data, age.new_opening(ME.recipient))
    begin = len(ours) - (length + (length - 1) // CHUNK_BYTES * 16 + 16)
    wrong = [ours[:-1], ours + b"x", ours[:begin], ours[: begin + 10], ours[:-20] + bytes([ours[-20] ^ 1]) + ours[-19:]]
    if length > CHUNK_BYTES:
        first, second = ours[begin : begin + SEALED_BYTES], ours[begin + SEALED_BYTES : begin + 2 * SEALED_BYTES]
        rest = ours[begin + 2 * SEALED_BYTES :]
        wrong += [ours[: begin + SEALED_BYTES], ours[:begin] + second + first + rest, ours[:begin] + first * 2 + rest]
    for each in wrong:
        found: list[bytes] = []
        with pytest.raises(BadStructure):
            found.extend(unsealed([each], [ME]))
        assert data.startswith(b"".join(found))


@settings(max_examples=60, deadline=None)
@given(
    pieces=st.lists(st.integers(0, 3 * CHUNK_BYTES), max_size=6),
    asked=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=6),
)
def test_any_place_of_any_stream(pieces: list[int], asked: list[tuple[float, float]]) -> None:
    """However it was written, each range comes back, from whole chunks and no more of them than it needs."""
    data = os.urandom(sum(pieces))
    sink = Sink()
    opening = age.new_opening(ME.recipient, CLEAR)
    sealer = Sealer(sink, opening)
    at = 0
    for length in pieces:
        sealer.write(data[at : at + length])
        at += length
    sealer.finish()
    assert sealer.bytes == len(data)
    stored = bytes(sink.data)
    assert b"".join(unsealed([stored], [ME])) == data
    unsealer = Unsealer(age.open_with(stored, [ME]), len(stored))
    assert unsealer.places.plain_bytes == len(data)
    for share, length_share in asked:
        offset = int(share * len(data))
        length = int(length_share * (len(data) - offset))
        first, end = unsealer.places.extent(offset, length)
        assert end - first <= (length // CHUNK_BYTES + 2) * SEALED_BYTES
        assert unsealer.open(stored[first:end], offset, length) == data[offset : offset + length]
        assert unsealer.places.chunk_at(offset) == first
    with pytest.raises(BadStructure):
        unsealer.places.extent(len(data), 1)


@given(data=st.binary(max_size=60))
def test_bech32_there_and_back(data: bytes) -> None:
    """Any bytes; in capitals, too."""
    text = bech32.encode("age", data)
    assert bech32.decode(text) == ("age", data)
    assert bech32.decode(text.upper()) == ("age", data)


@pytest.mark.parametrize("place", range(0, 62, 7))
def test_a_mistyped_letter_is_found(place: int) -> None:
    """Every one; and the error does not repeat a secret."""
    text = ME.text
    place = len(text) - 1 - place % 58
    wrong = text[:place] + ("Q" if text[place] != "Q" else "P") + text[place + 1 :]
    with pytest.raises(UsageError) as caught:
        Identity.parse(wrong)
    assert wrong[20:40] not in str(caught.value)
    with pytest.raises(UsageError, match="begins otherwise"):
        Identity.parse(ME.recipient.text)
