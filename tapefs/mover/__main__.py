"""`python -m tapefs.mover`: started by the sidecar, never by hand."""

from __future__ import annotations

import sys

from tapefs.starting import imports

if __name__ == "__main__":
    with imports():
        from tapefs.mover.process import main
    sys.exit(main())
