"""How the walk of a backup begins: its sources, what it leaves out, where it goes not. Intake thread."""

from __future__ import annotations

import os
from collections.abc import Callable

from catalog.records import Job
from tapefs.backup.base import Base
from tapefs.backup.rules import Rules
from tapefs.backup.scan import Walk
from tapefs.backup.segment import SetContext
from tapefs.backup.selection import PSEUDO_FILESYSTEMS, branches, devices_of


def walk_of(
    context: SetContext, job: Job, sources: list[bytes], base: Base | None, trouble: Callable[[bytes, str], None]
) -> Walk:
    """Return a walk that stands at the start of the sources; the state folder is none of them. Raises OSError.

    Only the folder of copies of the catalog may be one: those are whole files that nobody changes.
    """
    home = os.stat(context.home.path)
    copies = os.path.realpath(os.fsencode(context.home.copies))
    is_copies = all(os.path.realpath(source) == copies for source in sources)
    return Walk(
        branches(sources),
        Rules(job, sources, context.backup_set.started_at_ns),
        trouble,
        left_out=frozenset() if is_copies else frozenset({(home.st_dev, home.st_ino)}),
        pseudo_devices=devices_of(PSEUDO_FILESYSTEMS),
        base=base,
    )
