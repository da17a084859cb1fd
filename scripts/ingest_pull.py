#!/usr/bin/env python3
"""Pulls folders of other machines by rsync and backs them up; ready for cron.

    15 1 * * *  /opt/tapefs/.venv/bin/python /opt/tapefs/scripts/ingest_pull.py \\
                    --spool /srv/spool /etc/tapefs/sources

See docs/ingest.md.
"""

from __future__ import annotations

import sys

from tapefs.ingest.pull import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], __doc__))
