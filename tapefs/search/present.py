"""What was found, as JSON shows it, over HTTP and on the command line; and where it is in the mount. Pure functions."""

from __future__ import annotations

import stat
from base64 import b64encode

from catalog.index.model import Entry
from catalog.records import BackupSet
from tapefs.search.query import Match
from tapefs.search.versions import Version
from tapefs.vfs.nodes import KIND_NAMES
from tapefs.vfs.roster import Roster, folder_name, iso_time

Json = dict[str, object]


def mount_path(roster: Roster, backup_set: BackupSet, path: bytes) -> bytes:
    """Return where a path of a set is below the folder where the archive is mounted."""
    return f"jobs/{folder_name(backup_set.name)}/{roster.time_name(backup_set.set_id)}/".encode() + path


def match_json(roster: Roster, match: Match) -> Json:
    """Return a match; without attributes if they were not asked for."""
    result: Json = {
        **_set_json(match.backup_set),
        **_named("path", match.path),
        **_named("mount_path", mount_path(roster, match.backup_set, match.path)),
    }
    if match.entry is not None:
        result |= _entry_json(match.entry)
    if match.versions is not None:
        result["versions"] = match.versions
    return result


def version_json(roster: Roster, version: Version, path: bytes) -> Json:
    """Return a version of a path."""
    path = path.strip(b"/")
    result: Json = {
        **_set_json(version.backup_set),
        **_named("path", path),
        "last_set_id": version.last.set_id,
        "sets": version.sets,
        "gone": version.entry is None,
    }
    if version.entry is not None:
        result |= _named("mount_path", mount_path(roster, version.last, path))
        result |= _entry_json(version.entry)
        result["sha256"] = version.sha256.hex() or None
        result["same_content"] = version.same_content
        result["state"] = None if version.state is None else version.state.value
    return result


def _set_json(backup_set: BackupSet) -> Json:
    return {
        "job": backup_set.name,
        "set_id": backup_set.set_id,
        "started_at": iso_time(backup_set.started_at_ns),
    }


def _entry_json(entry: Entry) -> Json:
    return {
        "type": KIND_NAMES.get(stat.S_IFMT(entry.mode), "unknown"),
        "mode": f"{stat.S_IMODE(entry.mode):04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "size": entry.size,
        "mtime_ns": entry.mtime_ns,
    }


def _named(key: str, name: bytes) -> Json:
    """Return a name as text, and when it is not UTF-8 exactly, too, as base64 under `…_b64`."""
    try:
        return {key: name.decode("utf-8")}
    except UnicodeDecodeError:
        return {key: name.decode("utf-8", "replace"), f"{key}_b64": b64encode(name).decode("ascii")}
