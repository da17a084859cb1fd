"""Documents that are lists: nothing is left out of them, and their entries are of one form."""

from __future__ import annotations

import re
from pathlib import Path

from tapefs.cli import SECTIONS

ROOT = Path(__file__).parents[1]


def test_the_list_of_documents_has_all() -> None:
    listed = set(re.findall(r"\(([a-z-]+\.md)\)", (ROOT / "docs/README.md").read_text()))
    assert listed == {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}


def test_the_list_of_documents_has_the_pages_about_http() -> None:
    listed = set(re.findall(r"\(http/([a-z-]+\.md)\)", (ROOT / "docs/README.md").read_text()))
    assert listed == {path.name for path in (ROOT / "docs/http").glob("*.md")}


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
    """Files, and headings in them, as GitHub and GitLab name those."""
    pages = [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]
    for page in pages:
        for target, heading in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text()):
            there = (page.parent / target).resolve() if target else page
            assert there.exists(), f"{page}: {target}"
            assert not heading or heading in anchors(there), f"{page}: {target}#{heading}"


def test_the_map_names_what_there_is() -> None:
    """Every room, and no file or folder that is gone."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    packages = [ROOT / name for name in ("tapefs", "sidecar", "catalog", "drivers")]
    named = re.findall(r"`((?:tapefs|sidecar|catalog|drivers|tests|scripts)/[a-z_/.]*)`", text)
    assert [each for each in named if not (ROOT / each).exists()] == []
    rooms = [
        f"{folder.parent.name}/{folder.name}/" for each in packages for folder in each.iterdir() if folder.is_dir()
    ]
    assert [room for room in rooms if not room.endswith("__pycache__/") and room not in text] == []


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}
