"""Patterns find in a block exactly the names that they match, whatever is searched for inside."""

from __future__ import annotations

import fnmatch
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapefs.errors import UsageError
from tapefs.search.patterns import NamePattern, fold, last_names, path_matcher, search_block

#: Letters of both cases, characters that are not ASCII, two bytes that are an é together, letters that become others.
LETTERS = ["a", "b", "A", "B", ".", "0", "1", "\n", "[", "]", "é", "É", "ß", "Σ", "\u212a", "\udcc3", "\udca9"]
SPECIAL = ["*", "*", "?", "[ab]", "[!a]", "[0-9]", "[]a]", "[b-a]", "[é]", "[!é]", "[!]", "/"]
SPECIAL += ["[!]]", "[a-]", "[!a-]", "[!-a]", "[^a]", "[!b-a]", "[\\]", "[!\\]", "[a&&b]", "[[]", "[!\udca9]"]

text_names = st.lists(st.sampled_from(LETTERS), min_size=1, max_size=6).map("".join)
block_names = st.sets(text_names.map(os.fsencode), min_size=1, max_size=12).map(sorted)
globs = st.lists(st.sampled_from(LETTERS + SPECIAL), min_size=1, max_size=6).map("".join)


def text_of(names: list[bytes]) -> bytes:
    return b"\0" + b"".join(name + b"\0" for name in names)


def fits(pattern: str, name: bytes, *, ignore_case: bool) -> bool:
    text = os.fsdecode(name)
    return fnmatch.fnmatchcase(fold(text), fold(pattern)) if ignore_case else fnmatch.fnmatchcase(text, pattern)


@given(block_names, globs, st.booleans())
def test_globs_find_what_fnmatch_does(names: list[bytes], pattern: str, ignore_case: bool) -> None:
    expected = [(at, name) for at, name in enumerate(names) if fits(pattern, name, ignore_case=ignore_case)]
    assert list(NamePattern(pattern, ignore_case=ignore_case).hits(text_of(names))) == expected


@given(block_names, st.lists(globs, min_size=2, max_size=3))
def test_a_name_that_fits_several_patterns_is_found_once(names: list[bytes], patterns: list[str]) -> None:
    expected = [
        (at, name) for at, name in enumerate(names) if any(fits(each, name, ignore_case=False) for each in patterns)
    ]
    assert list(search_block([NamePattern(each) for each in patterns], text_of(names))) == expected


@given(block_names, st.sampled_from(["a", "^a", "a$", r"\d", "[ab]{2}", "É", "(?i)É", "^.$"]), st.booleans())
def test_regular_expressions_match_any_part(names: list[bytes], pattern: str, ignore_case: bool) -> None:
    compiled = re.compile(pattern, re.IGNORECASE if ignore_case else 0)
    expected = [(at, name) for at, name in enumerate(names) if compiled.search(os.fsdecode(name))]
    assert list(NamePattern(pattern, ignore_case=ignore_case, regex=True).hits(text_of(names))) == expected


@given(st.lists(text_names, min_size=1, max_size=4), globs, st.booleans())
def test_whatever_path_matches_is_looked_at(names: list[str], pattern: str, ignore_case: bool) -> None:
    """The names that are searched for a pattern of paths leave none out."""
    path = os.fsencode("/" + "/".join(names))
    if path_matcher(pattern, ignore_case=ignore_case, regex=False)(path):
        candidates = last_names(pattern, ignore_case=ignore_case, regex=False)
        assert list(candidates.hits(text_of([os.fsencode(names[-1])])))


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("/usr/*.h", b"/usr/include/sys/x.h", True),
        ("usr/*.h", b"/srv/usr/x.h", True),
        ("usr/*.h", b"/xusr/x.h", False),
        ("*/sys/?.h", b"/usr/include/sys/x.h", True),
        ("x.h", b"/usr/x.h", True),
        ("sys", b"/usr/sys/x.h", False),
    ],
)
def test_patterns_of_paths(pattern: str, path: bytes, expected: bool) -> None:
    assert path_matcher(pattern, ignore_case=False, regex=False)(path) == expected


@pytest.mark.parametrize("pattern", ["", "a\0", "\ud800", "x" * 5000])
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(UsageError):
        NamePattern(pattern)


def test_what_is_no_regular_expression() -> None:
    with pytest.raises(UsageError, match="is no pattern"):
        NamePattern("(", regex=True)


def test_case_is_folded_character_by_character() -> None:
    """A sigma at the end of a word is no other one, and nothing turns into a letter of ASCII."""
    assert fold("ÄΣ\u212a\u0130ß") == "äσ\u212a\u0130ß"
    assert [name for _, name in NamePattern("straße*", ignore_case=True).hits(text_of(["STRAßE 7".encode()]))]
