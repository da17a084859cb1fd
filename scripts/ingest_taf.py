#!/usr/bin/env python3
"""Takes TAF's archives on mounted LTFS volumes into the catalog; ready for cron.

    30 6 * * *  /opt/tapefs/.venv/bin/python /opt/tapefs/scripts/ingest_taf.py \\
                    --catalog postgresql://taf@/backup_db /mnt/ltfs0 /mnt/ltfs1

It is `tapefs taf import` for each volume, without a progress, and quiet where nothing is new. What was read before is
not read again, so it may run as often as you like. A place where nothing is mounted is passed over. Run it with the
Python of tapefs's own environment.

Exit codes: 0 all is in the catalog; 1 something could not be read to its end, or failed; 75 a sidecar has the state
folder and no drive where the volume is mounted, which the next run may find otherwise; 64 bad arguments.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

FAILED, USAGE, AGAIN = 1, 64, 75


def main(arguments: list[str]) -> int:
    """Import each volume; return the worst exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("volumes", nargs="+", type=Path, metavar="VOLUME", help="where a volume is mounted")
    parser.add_argument("--home", type=Path, help="the state folder [as tapefs itself has it]")
    parser.add_argument("--catalog", metavar="URL", help="TAF's: sqlite:PATH, or postgresql://USER@HOST/DATABASE")
    parser.add_argument("--again", action="store_true", help="read archives once more that were not whole")
    try:
        chosen = parser.parse_args(arguments)
    except SystemExit as error:
        return USAGE if error.code else 0
    mounted = [each for each in chosen.volumes if has_something(each)]
    return max((ingest(each, chosen) for each in mounted), default=0)


def has_something(volume: Path) -> bool:
    """Is anything there? A place where nothing is mounted is an empty folder."""
    try:
        return any(True for _ in os.scandir(volume))
    except OSError as error:
        print(f"ingest_taf: {volume}: {error.strerror}", file=sys.stderr)
        return False


def ingest(volume: Path, chosen: argparse.Namespace) -> int:
    """Import one volume and say what is new; return the exit code."""
    command = [sys.executable, "-m", "tapefs"]
    command += ["--home", str(chosen.home)] if chosen.home else []
    command += ["taf", "import", "--json", str(volume)]
    command += ["--catalog", chosen.catalog] if chosen.catalog else []
    command += ["--again"] if chosen.again else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        told = json.loads(done.stdout)
    except ValueError:
        print(f"ingest_taf: {volume}: {last_line(done.stderr)}", file=sys.stderr)
        return AGAIN if "is owned by" in done.stderr else FAILED
    for each in told["sets"]:
        tell(told["tape"], each)
    for taf_set in told["absent"]:
        print(f"{told['tape']}: TAF's catalog has {taf_set} on it, but it is not there")
    return FAILED if done.returncode else 0


def tell(tape: str, entered: dict[str, object]) -> None:
    """Print what is new of a set, and what is wrong with it."""
    if entered["known"]:
        return
    name = entered["taf_set"]
    print(f"{tape}: {name}: {entered['files']} files, {entered['bytes']} bytes, set {entered['set_id']}")
    for sentence in (entered["partial"], *_texts(entered["differences"])):
        if sentence:
            print(f"{tape}: {name}: {sentence}")


def _texts(value: object) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else []


def last_line(text: str) -> str:
    """Return what a command said last."""
    return (text.strip().splitlines() or ["it said nothing"])[-1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
