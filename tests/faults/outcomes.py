"""What comes of a fault, and where: the words of the table in docs/faults.md, and that table. Pure.

`python -m tests.faults.outcomes RESULTS...` writes the table from the JSON lines of complete sweeps.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs" / "faults.md"
BEGIN = "<!-- phases: begin, made by scripts/sweep-failures --write -->\n"
END = "<!-- phases: end -->\n"
#: Parts of a task, in the order in which they come.
PARTS = (
    "load",
    "label",
    "locate",
    "header",
    "payload",
    "trailer",
    "index",
    "load, to read",
    "label, to read",
    "locate, to read",
    "read",
)
#: What comes of a fault.
NONE = "none"
OUTCOMES = ("goes on", "another tape", "frames lost", "damage", "fails")
_LOADING = ("load", "rewind", "set", "hold", "settings?")
_OF_A_SEGMENT = ("header", "payload", "trailer")


def part_of(phase: str, first_file: int, *, segments: int = 2) -> str:
    """Return the part of a backup that a command in some tape file belongs to; the first HEADER is in `first_file`."""
    kind, _, where = phase.partition(" ")
    if kind in _LOADING or "before" in where:
        return "load"
    if kind in ("locate", "space"):
        return "locate"
    file = int(where.rpartition(" ")[2]) - first_file
    if kind == "read" or file < 0:
        return "label"
    return _OF_A_SEGMENT[file % 3] if file < 3 * segments else "index"


def outcome_of_backup(result: Mapping[str, object]) -> str:
    """Return what came of a backup in which something failed."""
    if result.get("error"):
        return "fails"
    is_left = result["state"] in ("suspect", "full") or not result["is_on_first"]
    return "another tape" if is_left else "goes on"


def codes_of(fault: str) -> str:
    """Return the codes of a fault as the table has them."""
    return fault.replace(" deferred", "d")


def table(results: Iterable[Mapping[str, str]]) -> str:
    """Return the table: a row for each part, a cell for each outcome with the codes that lead to it."""
    found: dict[tuple[str, str], set[str]] = {}
    for each in results:
        found.setdefault((each["part"], each["outcome"]), set()).add(codes_of(each["fault"]))
    lines = [f"| at | {' | '.join(OUTCOMES)} |", f"|---{'|---' * len(OUTCOMES)}|"]
    for part in PARTS:
        cells = [", ".join(sorted(found.get((part, outcome), ()))) or NONE for outcome in OUTCOMES]
        lines.append(f"| {part} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def documented() -> dict[tuple[str, str], set[str]]:
    """Return what docs/faults.md promises: by part and outcome, the codes."""
    text = DOCS.read_text().split(BEGIN)[1].split(END)[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.strip().splitlines()]
    assert rows[0][1:] == list(OUTCOMES)
    return {
        (row[0], outcome): {code for code in cell.split(", ") if code != NONE}
        for row in rows[2:]
        for outcome, cell in zip(OUTCOMES, row[1:], strict=True)
    }


def undocumented(results: Iterable[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """Return the results that docs/faults.md does not tell."""
    known = documented()
    return [each for each in results if codes_of(each["fault"]) not in known[each["part"], each["outcome"]]]


def main() -> None:
    results = [json.loads(line) for name in sys.argv[1:] for line in Path(name).read_text().splitlines()]
    before, rest = DOCS.read_text().split(BEGIN)
    DOCS.write_text(before + BEGIN + "\n" + table(results) + "\n" + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
