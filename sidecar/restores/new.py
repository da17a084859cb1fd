"""Takes orders to restore something on this host: refuses at once what would be refused later. One trio run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial

import trio

from catalog.ids import DirectoryNo
from catalog.index.reader import IndexReader
from catalog.records import BackupSet
from catalog.recovery_records import Recovery
from sidecar.access.places import check_targets
from sidecar.http.answers import shown
from sidecar.http.callers import Caller, Role
from sidecar.http.statuses import Forbidden
from sidecar.service import Service
from tapefs.access.places import is_escape, open_target
from tapefs.errors import NoSuchThing, SourceError
from tapefs.home import Home

_ROOT = DirectoryNo(0)


async def new_restore(
    service: Service, caller: Caller, backup_set: BackupSet, paths: tuple[bytes, ...], target: bytes, *, over: bool
) -> Recovery:
    """Record a restore of paths, `/` being all; `over`: files that are there are replaced.

    Raises NoSuchThing, Forbidden, SourceError.
    """
    check_targets(caller, [target], service.home.settings.access)
    is_admin = caller.role is Role.ADMIN
    await trio.to_thread.run_sync(partial(_check, service.home, backup_set, paths, target, caller))
    return await service.restorations.add(
        backup_set.set_id,
        () if b"/" in paths else paths,
        target,
        caller.name,
        special=is_admin and not backup_set.is_imported,
        bound=not is_admin,
        over=over,
    )


def _check(home: Home, backup_set: BackupSet, paths: Sequence[bytes], target: bytes, caller: Caller) -> None:
    """Refuse at once what would be refused later. Blocking. Raises NoSuchThing, Forbidden, SourceError."""
    with IndexReader(home.index(backup_set.set_id)) as reader:
        for path in paths:
            if not _is_there(reader, path):
                raise NoSuchThing(f"set {backup_set.name} has no {shown(path)}")
    if caller.role is not Role.ADMIN:
        try:
            os.close(open_target(target, home.settings.access.restore_targets))
        except OSError as error:
            if is_escape(error):
                raise Forbidden(f"{shown(target)} leads elsewhere by a symbolic link, or is no folder") from error
            raise SourceError(f"{shown(target)}: {error.strerror}; make it first") from error


def _is_there(reader: IndexReader, path: bytes) -> bool:
    directory, names = reader.directory(_ROOT), [name for name in path.split(b"/") if name]
    for depth, name in enumerate(names):
        found = reader.lookup(directory, name)
        if found is None:
            return False
        if depth < len(names) - 1:
            if found[1].mode & 0o170000 != 0o040000:
                return False
            directory = reader.directory(DirectoryNo(found[1].offset))
    return True
