"""`python -m tapefs` is the command `tapefs`, and the command is this."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line; one that is interrupted before it has begun says no more than later."""
    open_streams()
    try:
        from tapefs.cli import main as command
    except KeyboardInterrupt:
        sys.exit("tapefs: interrupted")
    command()


def open_streams() -> None:
    """Have stdin, stdout and stderr lead somewhere, also where the caller has closed them (`tapefs … >&-`).

    The next file that is opened would get the number of one that is closed, and what is printed would go into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # It gets the lowest number that is free.
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 -- as long as the process
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


if __name__ == "__main__":
    main()
