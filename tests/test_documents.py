"""Documents that are lists: nothing is left out of them, and their entries are of one form."""

from __future__ import annotations

import re
from pathlib import Path

from tapefs.cli import SECTIONS

ROOT = Path(__file__).parents[1]


def test_the_list_of_documents_has_all() -> None:
    listed = set(re.findall(r"\(([a-z-]+\.md)\)", (ROOT / "docs/README.md").read_text()))
    assert listed == {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}


def test_all_commands_are_told_in_the_order_of_the_help() -> None:
    """Section by section; what stands in a row may be told together."""
    page = (ROOT / "docs/commands.md").read_text()
    parts = re.split(r"^\*\*(.+)\*\*$", page, flags=re.M)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert list(sections) == list(SECTIONS)
    for section, commands in SECTIONS.items():
        cells = " ".join(re.findall(r"^\| (`.*?) \| ", sections[section], re.M))
        assert set(re.findall(r"`([a-z]+)[ `]", cells)) == set(commands)


def test_changes_begin_with_their_kind() -> None:
    first = {path.name: path.read_text().partition("\n")[0] for path in (ROOT / "changelog/unreleased").iterdir()}
    assert [name for name, line in first.items() if not re.match("(New|Changed|Fixed|Security): [A-Z`]", line)] == []


def test_links_between_documents_lead_somewhere() -> None:
    """Files, and headings of the guide, whose table of contents is by hand."""
    for path in (*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "ARCHITECTURE.md"):
        text = path.read_text()
        for target in re.findall(r"\]\(([a-z][A-Za-z/_.-]+\.md)(?:#[^)]*)?\)", text):
            assert (path.parent / target).exists(), f"{path.name}: {target}"
    guide = (ROOT / "docs/operations.md").read_text()
    headings = {
        re.sub(r"[^a-z -]", "", line[3:].lower()).replace(" ", "-") for line in re.findall("^## .*", guide, re.M)
    }
    assert set(re.findall(r"\(#([^)]*)\)", guide)) <= headings
