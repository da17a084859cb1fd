"""`python -m tapefs` is the command `tapefs`, and the command is this."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; one that is interrupted before it has begun says no more than later."""
    try:
        from tapefs.cli import main as command
    except KeyboardInterrupt:
        sys.exit("tapefs: interrupted")
    command()


if __name__ == "__main__":
    main()
