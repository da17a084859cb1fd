"""`python -m tapefs.mover`: started by the sidecar, never by hand."""

from __future__ import annotations

import sys

from tapefs.starting import import_without_rich, imports

if __name__ == "__main__":
    with imports():
        import_without_rich("structlog")
        from tapefs.mover.process import main
    sys.exit(main())
