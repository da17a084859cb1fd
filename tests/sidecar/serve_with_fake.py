"""`tapefs serve` with the scripted mover, as a process of its own.

Where HOME/steps.json says so, long steps of the event loop are written down.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tapefs.starting import import_without_rich, imports

with imports():
    import_without_rich("structlog")
    import trio

    from drivers.errors import DriveError
    from sidecar.serve import serve
    from tapefs.errors import TapefsError
    from tapefs.home import Home, open_home
    from tests.sidecar.steps import Steps


def fake_command(home: Home, drive: str, number: int, descriptor: int) -> Sequence[str]:
    arguments = ["--home", str(home.path), "--drive", drive, "--number", str(number), "--fd", str(descriptor)]
    return [sys.executable, "-m", "tests.sidecar.fake_mover", *arguments]


def _watch_steps(home: Home) -> None:
    """Have the run of the sidecar watched, when it begins in this thread."""
    wanted = home.path / "steps.json"
    if not wanted.exists():
        return
    rules = json.loads(wanted.read_text())
    real_run = trio.run

    def run(*arguments: Any, **options: Any) -> Any:
        return real_run(*arguments, **options, instruments=[Steps(Path(rules["path"]), rules["longest_s"])])

    setattr(trio, "run", run)  # noqa: B010 -- the sidecar calls it by that name


def _plant_bug(home: Home) -> None:
    """Have the tasks of drives meet a bug in the middle of a backup, while HOME/bug is there."""
    from sidecar.drives.backing_up import BackingUp

    real_work = BackingUp._work

    async def work(self: BackingUp, *arguments: Any) -> Any:
        if (home.path / "bug").exists():
            raise KeyError("planted")
        return await real_work(self, *arguments)

    setattr(BackingUp, "_work", work)  # noqa: B010


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--listen")
    parser.add_argument("--mount", type=Path)
    parser.add_argument("--until-idle", action="store_true")
    options = parser.parse_args()
    home = open_home(options.home)
    _watch_steps(home)
    _plant_bug(home)
    try:
        serve(
            home,
            listen=options.listen,
            mount=options.mount,
            until_idle=options.until_idle,
            command=fake_command,
        )
    except (TapefsError, DriveError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
