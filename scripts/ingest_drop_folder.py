#!/usr/bin/env python3
"""Archives what appears in a drop folder; ready for cron, or for a service with --watch.

    */5 * * * *  /opt/tapefs/.venv/bin/python /opt/tapefs/scripts/ingest_drop_folder.py \\
                     --copies 2 --done /srv/done /srv/drop

See docs/ingest.md.
"""

from __future__ import annotations

import sys

from tapefs.ingest.drop_folder import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], __doc__))
