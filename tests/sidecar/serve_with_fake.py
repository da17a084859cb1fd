"""`tapefs serve` with the scripted mover, as a process of its own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tapefs.starting import import_without_rich, imports

with imports():
    import_without_rich("structlog")
    from drivers.errors import DriveError
    from sidecar.serve import serve
    from tapefs.errors import TapefsError
    from tapefs.home import Home, open_home


def fake_command(home: Home, drive: str, number: int, descriptor: int) -> Sequence[str]:
    arguments = ["--home", str(home.path), "--drive", drive, "--number", str(number), "--fd", str(descriptor)]
    return [sys.executable, "-m", "tests.sidecar.fake_mover", *arguments]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--listen")
    parser.add_argument("--mount", type=Path)
    parser.add_argument("--until-idle", action="store_true")
    options = parser.parse_args()
    try:
        serve(
            open_home(options.home),
            listen=options.listen,
            mount=options.mount,
            until_idle=options.until_idle,
            command=fake_command,
        )
    except (TapefsError, DriveError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
