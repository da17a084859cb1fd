"""Which drives may run a job whose pool is to be encrypted by the drive. Pure but for the drives' files; any thread."""

from __future__ import annotations

from collections.abc import Collection

from catalog.records import Job
from tapefs.home import Home
from tapefs.mover.drive_file import says_it_encrypts


def may_encrypt(home: Home, job: Job, drive: str, drives_up: Collection[str]) -> bool:
    """May this drive run it? One that cannot encrypt leaves it to those of `drives_up` that can.

    If none can, it may, and is refused with a sentence that says why.
    """
    settings, pool = home.settings.encryption, job.pool or home.settings.backup.pool
    if settings.by_of(pool) != "drive" or not settings.key_of(pool) or says_it_encrypts(home.drives, drive):
        return True
    return not any(says_it_encrypts(home.drives, other) for other in drives_up)
