"""TAF's archives on mounted LTFS volumes into the catalog: `tapefs taf import` for each. Blocking.

It is the command that runs, in a process of its own: only that may read a volume beside the state folder, and it knows
when to ask the sidecar instead.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from tapefs.home import URL
from tapefs.ingest.manners import AGAIN, DONE, FAILED, Parser, locked, run, tell, usual_lock

NAME = "ingest_taf"
#: What the command says while a sidecar has the state folder and no drive there: see HomeInUse.
_IN_USE = "is owned by"


def main(arguments: list[str], document: str | None) -> int:
    """Run the script; return its exit code."""
    parser = Parser(NAME, document, is_here=True)
    parser.add_argument("volumes", nargs="+", type=Path, metavar="VOLUME", help="where a volume is mounted")
    parser.add_argument("--catalog", metavar="URL", help="TAF's: sqlite:PATH, or postgresql://USER@HOST/DATABASE")
    parser.add_argument("--again", action="store_true", help="read archives once more that were not whole")
    parser.add_argument("--lock", type=Path, metavar="FILE", help="[tapefs-taf.lock in /run/lock, or TMPDIR]")
    chosen = parser.parse_args(arguments)
    return run(NAME, lambda: _run(chosen))


def _run(chosen: argparse.Namespace) -> int:
    with locked(chosen.lock or usual_lock("taf")):
        # FAILED is for people to look at, AGAIN is not: of two volumes with either the worse one counts.
        codes = {_one(volume, chosen) for volume in chosen.volumes}
    return next((code for code in (FAILED, AGAIN) if code in codes), DONE)


def _one(volume: Path, chosen: argparse.Namespace) -> int:
    """Import one volume and tell what became of it; others go on whatever that is."""
    try:
        if not any(True for _ in os.scandir(volume)):
            return DONE  # A place where nothing is mounted.
    except OSError as error:
        return _failed(volume, f"{volume}: {error.strerror}", FAILED)
    done = subprocess.run(_command(volume, chosen), capture_output=True, text=True, env=_environment(), check=False)
    try:
        told = json.loads(done.stdout)
    except ValueError:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return _failed(volume, said.removeprefix("tapefs: "), AGAIN if _IN_USE in said else FAILED)
    tell(
        script=NAME, volume=str(volume), tape=told["tape"], ok=done.returncode == 0,
        sets=[each for each in told["sets"] if not each["known"] or each["partial"] or each["problems"]],
        known=sum(each["known"] for each in told["sets"]),
        absent=told["absent"], error=None if done.returncode == 0 else "sets could not be read to their end",
    )  # fmt: skip
    return FAILED if done.returncode else DONE


def _failed(volume: Path, reason: str, code: int) -> int:
    print(f"{NAME}: {reason}", file=sys.stderr)
    tell(script=NAME, volume=str(volume), tape=None, ok=False, sets=[], known=0, absent=[], error=reason)
    return code


def _command(volume: Path, chosen: argparse.Namespace) -> list[str]:
    command = [sys.executable, "-m", "tapefs"]
    command += ["--home", str(chosen.home)] if chosen.home else []
    command += ["taf", "import", "--json", str(volume)]
    command += ["--catalog", chosen.catalog] if chosen.catalog else []
    return [*command, "--again"] if chosen.again else command


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != URL}
