"""Sizes, names and paths as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapefs.cli.output import iso_time, named, paths, printable, short_time, size
from tapefs.cli.place import split_target
from tapefs.cli.values import name_from_path, parse_age, parse_size, wrong_with_name


@pytest.mark.parametrize(
    ("text", "count_bytes"),
    [
        ("0", 0),
        ("4096", 4096),
        ("1B", 1),
        ("2GiB", 2 * 1024**3),
        ("2gib", 2 * 1024**3),
        ("500MB", 500_000_000),
        ("1.5T", 1536 * 1024**3),
        (" 18 TB ", 18 * 10**12),
        ("0.1KB", 100),
    ],
)
def test_sizes(text, count_bytes):
    assert parse_size(text) == count_bytes


@pytest.mark.parametrize("text", ["", "GiB", "-1", "1e9", "2 Gi B", "2GXB", "0x10", "1,5G", "nan", "\u0661GiB"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match=r"size|unit"):
        parse_size(text)


@pytest.mark.parametrize(
    ("count_bytes", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536 * 1024**2, "1.5 GiB"), (5 * 1024**5, "5.0 PiB")],
)
def test_sizes_for_people(count_bytes, text):
    assert size(count_bytes) == text


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (b"/usr/share", "share"),
        (b"/usr/share//", "share"),
        (b"/", "root"),
        (b"/srv/a:b", "a-b"),
        (b"/srv/\xff\n", "--"),
        ("/srv/füße".encode(), "füße"),
    ],
)
def test_names_from_paths(path, name):
    assert name_from_path(path) == name


@given(st.binary())
def test_every_path_gives_a_good_name(path):
    assert wrong_with_name(name_from_path(b"/" + path)) == ""


def test_a_path_may_hold_colons():
    assert split_target("docs:a:b") == ("docs", b"a:b")
    assert split_target("docs/latest") == ("docs/latest", b"")
    assert split_target("docs:\udcff") == ("docs", b"\xff")


def test_what_a_terminal_must_not_see():
    assert printable("plain ü") == "plain ü"
    assert printable("\x1b[31m\n\udcff\u202e") == "\\x1b[31m\\x0a\\xff\\u202e"


def test_names_in_json():
    assert named("name", "ü".encode()) == {"name": "ü"}
    assert named("name", b"a\xff") == {"name": "a\ufffd", "name_b64": "Yf8="}
    assert paths("sources", [b"/a"]) == {"sources": ["/a"]}
    assert paths("sources", [b"/a", b"/\xff"]) == {"sources": ["/a", "/\ufffd"], "sources_b64": ["L2E=", "L/8="]}


def test_times():
    at_ns = 1_795_399_200_123_456_789
    assert iso_time(at_ns) == "2026-11-23T02:00:00.123456Z"
    assert short_time(at_ns) == "2026-11-23 02:00:00Z"
    assert iso_time(0) is None
    assert short_time(0) == "-"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("30s", 30),
        ("90min", 5400),
        ("12h", 43_200),
        ("1.5d", 129_600),
        ("2 W", 1_209_600),
        ("1y", 31_536_000),
    ],
)
def test_ages(text, seconds):
    assert parse_age(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "d", "1m", "-1d", "1d2h"])
def test_what_is_no_age(text):
    with pytest.raises(ValueError, match="is no age"):
        parse_age(text)
