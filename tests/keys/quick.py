"""`tapefs`, but a passphrase of a key that it makes takes no second: `python -m tests.keys.quick ARGUMENTS...`

How much work a passphrase takes is written beside what it opens, so whoever opens such a key later is quick as well.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tapefs.keys import age

#: 16 KiB of memory instead of 256 MiB.
LOG_N = 4


def command(home: Path, *arguments: str | Path) -> list[str]:
    """Return the command line of a `tapefs` that makes such keys in a state folder."""
    return [sys.executable, "-m", "tests.keys.quick", "--home", str(home), *map(str, arguments)]


if __name__ == "__main__":
    from tapefs.cli import main

    age.new_passphrase_opening.__defaults__ = (LOG_N,)
    main()
