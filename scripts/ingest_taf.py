#!/usr/bin/env python3
"""Takes TAF's archives on mounted LTFS volumes into the catalog; ready for cron.

    30 6 * * *  /opt/tapefs/.venv/bin/python /opt/tapefs/scripts/ingest_taf.py \\
                    --catalog postgresql://taf@/backup_db /mnt/ltfs0 /mnt/ltfs1

See docs/ingest.md.
"""

from __future__ import annotations

import sys

from tapefs.ingest.taf import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], __doc__))
