#!/usr/bin/env python3
"""Dumps PostgreSQL databases straight to tape; ready for cron.

    0 2 * * *  /opt/tapefs/.venv/bin/python /opt/tapefs/scripts/ingest_postgresql.py --dsn 'host=/run/postgresql'

See docs/ingest.md.
"""

from __future__ import annotations

import sys

from tapefs.ingest.postgresql import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], __doc__))
