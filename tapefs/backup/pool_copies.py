"""Copies of a set on tapes of further pools, made from tape behind the backup. Mover's main thread.

Harmless to repeat: what lies there already is not copied again.
"""

from __future__ import annotations

import socket

from catalog.errors import CatalogError
from catalog.ids import SetId
from catalog.ledger import Ledger
from catalog.records import Job
from drivers.errors import DriveError
from drivers.interface import Drive
from tapefs.backup.copying import copy_to_pool
from tapefs.backup.segment import SetContext
from tapefs.backup.watcher import Watcher
from tapefs.codecs import codec
from tapefs.errors import Cancelled, NotVerified, TapefsError
from tapefs.home import Home


def copy_to_pools(home: Home, ledger: Ledger, drive: Drive, job: Job, set_id: SetId, watcher: Watcher) -> bool:
    """Have a COMPLETE set on tapes of all the pools that it is to be copied to; was there any?

    Raises NotVerified when a copy could not be made, Cancelled. The set stays COMPLETE, copies that were made stay.
    """
    backup_set = ledger.backup_set(set_id)
    the_codec = codec(backup_set.codec, home.settings.backup.gzip_engine)
    for pool in backup_set.copy_pools:
        context = SetContext(home, ledger, ledger.backup_set(set_id), socket.gethostname(), the_codec)
        try:
            copy_to_pool(context, drive, watcher, pool)
        except Cancelled as error:
            raise Cancelled(f"{error} while its set, which is complete on tape, was copied to pool {pool}") from error
        except (TapefsError, DriveError, CatalogError, OSError) as error:
            raise NotVerified(
                f"its set is complete on tape, but the copy in pool {pool} could not be made: {error}; "
                f"`tapefs job resume {job.number}` tries again"
            ) from error
    return bool(backup_set.copy_pools)
