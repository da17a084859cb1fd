"""Stored records prove themselves."""

from __future__ import annotations

import msgspec
import pytest

from catalog import checked
from catalog.checked import Codec, seal, unseal
from catalog.errors import CatalogError, Damaged, WrongVersion
from catalog.records import Job
from tests.catalog.builders import job_of

KEY = b"\0\0\0\1"


def test_a_record_comes_back() -> None:
    codec = Codec("jobs", Job)
    assert codec.decode(KEY, codec.encode(KEY, job_of("a"))) == job_of("a")


def test_golden_bytes() -> None:
    """The encoding is what the documentation says; stored ledgers depend on it."""
    value = Codec("t", str).encode(b"key", "text")
    assert value.hex() == "01" + "cc970abcc14baf19" + "a474657874"


def test_every_flipped_bit_is_noticed() -> None:
    codec = Codec("jobs", Job)
    value = codec.encode(KEY, job_of("a"))
    for bit in range(len(value) * 8):
        flipped = bytearray(value)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Damaged) as caught:
            codec.decode(KEY, bytes(flipped))
        assert caught.value.where == "jobs['\\x00\\x00\\x00\\x01']"


def test_every_cut_is_noticed() -> None:
    value = seal(b"jobs", KEY, b"content")
    for length in range(len(value)):
        with pytest.raises(Damaged):
            unseal(b"jobs", KEY, value[:length])
    with pytest.raises(Damaged):
        unseal(b"jobs", KEY, value + b"\0")


def test_a_record_in_another_place_is_noticed() -> None:
    value = seal(b"jobs", b"ab", b"content")
    assert unseal(b"jobs", b"ab", value) == b"content"
    for table, key in ((b"sets", b"ab"), (b"jobs", b"ac"), (b"jobs", b"a"), (b"jobs", b"abc")):
        with pytest.raises(Damaged):
            unseal(table, key, value)
    assert seal(b"jobs", b"a", b"bcontent")[:9] != value[:9]


def test_another_encoding_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checked, "VERSION", 2)
    value = seal(b"jobs", KEY, b"content")
    monkeypatch.setattr(checked, "VERSION", 1)
    with pytest.raises(WrongVersion, match=r"encoding 2, this tapefs knows 1"):
        unseal(b"jobs", KEY, value)


def test_unknown_fields_are_ignored_and_missing_ones_are_damage() -> None:
    class NewerJob(Job, frozen=True, kw_only=True):
        colour: str = "red"

    newer = NewerJob(**msgspec.structs.asdict(job_of("a")))
    assert Codec("jobs", Job).decode(KEY, Codec("jobs", NewerJob).encode(KEY, newer)) == job_of("a")
    with pytest.raises(Damaged, match="does not fit its type"):
        Codec("jobs", Job).decode(KEY, Codec("jobs", dict[str, int]).encode(KEY, {"number": 1}))


def test_nothing_unreadable_is_encoded() -> None:
    with pytest.raises(ValueError, match="does not fit jobs"):
        Codec("jobs", Job).encode(KEY, msgspec.structs.replace(job_of("a"), runs="many"))


def test_damage_is_a_catalog_error_that_names_the_record() -> None:
    with pytest.raises(CatalogError, match=r"jobs\['\\x00\\x00\\x00\\x01'\]"):
        unseal(b"jobs", KEY, b"")
