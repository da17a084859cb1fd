"""Ranges and conditions, as RFC 9110 has them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from sidecar.view.content import attachment
from sidecar.view.ranges import Span, Unsatisfiable, http_date, is_other, is_unchanged, span_of

AT_NS = 1_700_000_000_123_456_789


def span(size: int = 100, **headers: str) -> Span | None:
    return span_of(Headers({name.replace("_", "-"): value for name, value in headers.items()}), size, "tag", AT_NS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bytes=0-9", Span(0, 10)),
        ("bytes=90-", Span(90, 100)),
        ("bytes=90-1000", Span(90, 100)),
        ("bytes=-10", Span(90, 100)),
        ("bytes=-1000", Span(0, 100)),
        ("bytes=99-99", Span(99, 100)),
        ("bytes=9-0", None),
        ("bytes=0-1,3-4", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("lines=0-1", None),
        ("", None),
    ],
)
def test_ranges(text: str, expected: Span | None) -> None:
    assert span(range=text) == expected


@pytest.mark.parametrize(("text", "size"), [("bytes=100-", 100), ("bytes=-0", 100), ("bytes=0-", 0), ("bytes=-5", 0)])
def test_what_lies_behind_the_end(text: str, size: int) -> None:
    with pytest.raises(Unsatisfiable):
        span(size, range=text)


@given(st.text(st.characters(max_codepoint=255), max_size=40), st.integers(0, 200))
def test_nothing_is_ever_outside(text: str, size: int) -> None:
    try:
        found = span(size, range=f"bytes={text}")
    except Unsatisfiable:
        return
    assert found is None or 0 <= found.start < found.end <= size


def test_if_range() -> None:
    assert span(range="bytes=0-0", if_range='"tag"') == Span(0, 1)
    assert span(range="bytes=0-0", if_range=http_date(AT_NS)) == Span(0, 1)
    for other in ('"other"', 'W/"tag"', http_date(AT_NS - 10**9), "nonsense"):
        assert span(range="bytes=0-0", if_range=other) is None, other


def test_conditions() -> None:
    def unchanged(**headers: str) -> bool:
        return is_unchanged(Headers({name.replace("_", "-"): value for name, value in headers.items()}), "tag", AT_NS)

    assert unchanged(if_none_match='"a", W/"tag"')
    assert unchanged(if_none_match="*")
    assert not unchanged(if_none_match='"a"', if_modified_since=http_date(AT_NS))
    assert unchanged(if_modified_since=http_date(AT_NS))
    assert not unchanged(if_modified_since=http_date(AT_NS - 10**9))
    assert not unchanged(if_modified_since="yesterday")
    assert not unchanged()
    assert is_other(Headers({"if-match": '"a"'}), "tag")
    assert not is_other(Headers({"if-match": '"a", "tag"'}), "tag")
    assert not is_other(Headers({}), "tag")


def test_names_for_saving() -> None:
    assert attachment(b"a.txt") == "attachment; filename=\"a.txt\"; filename*=UTF-8''a.txt"
    text = attachment(b'\xff"\\\n\xc3\xa4')
    assert "\n" not in text
    assert text.isascii()
    assert text.endswith("filename*=UTF-8''%FF%22%5C%0A%C3%A4")
