"""Copies of the catalog: making one by a command of our own, and those that there are. One trio run.

What is listed is what this installation knows of: sets that its own job has made, and files in the folders that
schedules or people have named.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import trio

from catalog.ids import SetId
from catalog.ledger import Ledger
from catalog.records import SetState
from catalog.schedule_records import CopyCatalog
from sidecar.http.answers import moment, shown
from sidecar.schedules.programs import Ended, run_own
from tapefs.home import Home
from tapefs.safekeeping.contents import COPY_JOB

_NS_PER_S = 1_000_000_000
#: Files that we have made are called so.
_NAME = "catalog-%Y%m%dT%H%M%SZ.tar.zst"
_PATTERN = re.compile(r"catalog-[0-9]{8}T[0-9]{6}Z\.tar\.zst")


class CatalogCopy(msgspec.Struct, frozen=True, kw_only=True):
    """A copy of the catalog."""

    made_at: datetime | None
    #: Of one on tape: its set, and the tapes that it lies on.
    set_id: SetId | None = None
    tapes: list[str] = []
    #: Of one in a folder of the sidecar's host; what is not UTF-8 as escapes, then `path_b64` has the bytes.
    path: str | None = None
    path_b64: str | None = None
    bytes: int

    @property
    def key(self) -> tuple[str, str]:
        """Sorts them by age."""
        made_at = "" if self.made_at is None else self.made_at.astimezone(UTC).isoformat()
        return made_at, self.set_id or self.path_b64 or ""


async def copy_catalog(
    home: Home, order: CopyCatalog, now_ns: int, given_up: trio.Event, listen: Callable[[bytes], None] | None = None
) -> tuple[str, Ended]:
    """Make one; return where it is, and how the command ended. Copies that are too many in its folder go then."""
    if not order.folder:
        days = str(order.keep)
        arguments = ["catalog", "backup", "--to-tape", "--retention-days", days]
        return "tape", await run_own(home, arguments, given_up, listen)
    path = Path(order.folder) / datetime.fromtimestamp(now_ns // _NS_PER_S, UTC).strftime(_NAME)
    ended = await run_own(home, ["catalog", "backup", "--", str(path)], given_up, listen)
    if not ended.error and order.keep:
        await trio.to_thread.run_sync(_keep_newest, Path(order.folder), order.keep)
    return str(path), ended


def _keep_newest(folder: Path, count: int) -> None:
    for old in sorted(_files(folder))[:-count]:
        old.unlink(missing_ok=True)


def copies(ledger: Ledger, folders: Iterable[str]) -> list[CatalogCopy]:
    """Return those on tape and those in folders, and in the folders of schedules; the newest first. Blocking.

    Raises OSError for a folder that is there and cannot be read.
    """
    scheduled = (each.action.folder for each in ledger.sound_schedules()[0] if isinstance(each.action, CopyCatalog))
    wanted = sorted({Path(folder) for folder in (*folders, *scheduled) if folder})
    found = [*_on_tape(ledger), *(each for folder in wanted for each in _in_folder(folder))]
    return sorted(found, key=lambda each: each.key, reverse=True)


def _on_tape(ledger: Ledger) -> Iterator[CatalogCopy]:
    for each in ledger.backup_sets():
        if each.name == COPY_JOB and each.state is SetState.COMPLETE:
            made_at = moment(each.finished_at_ns)
            yield CatalogCopy(made_at=made_at, set_id=each.set_id, tapes=list(each.tapes), bytes=each.stored_bytes)


def _in_folder(folder: Path) -> Iterator[CatalogCopy]:
    for path in _files(folder):
        try:
            size_bytes = path.stat().st_size
        except FileNotFoundError:
            continue  # It was one too many.
        raw = bytes(path)
        made_at = datetime.strptime(path.name, _NAME).replace(tzinfo=UTC).astimezone()
        yield CatalogCopy(made_at=made_at, path=shown(raw), path_b64=b64encode(raw).decode(), bytes=size_bytes)


def _files(folder: Path) -> list[Path]:
    """Return the copies in a folder; none in one that is not there, as where nothing is mounted."""
    try:
        return [path for path in folder.iterdir() if _PATTERN.fullmatch(path.name)]
    except (FileNotFoundError, NotADirectoryError):
        return []
