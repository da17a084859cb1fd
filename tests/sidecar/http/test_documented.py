"""docs/http/calls.md names every call. `scripts/fix` writes it anew, `scripts/check` compares it, too."""

from __future__ import annotations

import re
import sys
from typing import cast

from sidecar.http.app import calls_of
from sidecar.http.calls import Call
from sidecar.service import Service
from tests.sidecar.http.test_calls import Parts
from tests.sidecar.rig import ROOT

STALE = "docs/http/calls.md does not say what the calls say of themselves: run scripts/fix"
PAGE = ROOT / "docs/http/calls.md"
HEAD = """# All calls

Every path, the least role that it takes, and what it does; `-` means that anybody may. Which scopes of tokens are
enough as well, what goes in and what comes out, stands in `/openapi.json`
([http.md](../http.md#all-calls-openapijson-and-docs)). A test compares this page with the calls.
"""
#: Titles, the beginnings of paths, and the page that says more.
PARTS = (
    ("Ours", ("/api/v1/", "/health", "/metrics", "/openapi.json", "/docs"), "[http.md](../http.md)"),
    ("TAF's", ("/api/",), "[taf.md](taf.md)"),
    ("The WLCG Tape REST API", ("/wlcg/", "/.well-known/"), "[wlcg.md](wlcg.md)"),
    ("WebDAV", ("/",), "[webdav.md](webdav.md)"),
)


def page() -> str:
    """Return what the page should say."""
    calls = calls_of(cast(Service, Parts()))
    text, told = HEAD, set[int]()
    for title, beginnings, more in PARTS:
        chosen = [call for call in calls if id(call) not in told and call.path.startswith(beginnings)]
        told |= {id(call) for call in chosen}
        rows = sorted({_row(call) for call in chosen}, key=lambda row: row[0])
        lines = "\n".join(f"| {row} |" for _, row in rows)
        text += f"\n## {title}\n\nMore: {more}.\n\n| call | role | what it does |\n|---|---|---|\n{lines}\n"
    return text


def _row(call: Call) -> tuple[tuple[str, str], str]:
    """Return a row and what it is sorted by."""
    methods = ", ".join(sorted((call.methods or set()) - {"HEAD"}))
    path = re.sub(r":[a-z]+(?=\})", "", call.path)
    role = call.needs.name.lower() if call.needs else "-"
    return (path, methods), f"`{methods} {path}` | {role} | {call.summary.replace('|', '/')}"


def test_every_call_is_named() -> None:
    assert PAGE.read_text() == page(), STALE


def test_every_call_says_what_it_does_in_a_sentence() -> None:
    for call in calls_of(cast(Service, Parts())):
        assert 8 <= len(call.summary) <= 120, call.path
        assert call.summary[0].isupper(), call.path


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(0 if PAGE.read_text() == page() else STALE)
    PAGE.write_text(page())
