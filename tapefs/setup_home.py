"""Making a state folder: settings, token, ledger and, unless there is a real one, a virtual library, all or nothing.

Everything is built under a temporary name beside the place and renamed at the end, so that a folder with `tapefs.toml`
is always whole. Blocking. What a crash left under the temporary name is removed by the next try.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from catalog.crash import crash_point
from catalog.ids import VolumeId, new_uuid
from catalog.lmdb_ledger import LmdbLedger
from catalog.records import Volume, VolumeState
from drivers.registry import check_library
from drivers.virtual.library import create_library
from tapefs.durable import sync_folder
from tapefs.errors import HomeError, NotNow, UsageError
from tapefs.home import FORMAT, Home, open_home
from tapefs.settings.backup import BackupSettings
from tapefs.settings.library import LibrarySettings

TOKEN_BYTES = 32

_SETTINGS = """\
# Settings of this tapefs state folder. Unknown keys are refused; `format` is the layout of the folder, leave it alone.
format = {format}

{library}
# What follows are the defaults.
[backup]
# block_size = 262144         # bytes of a tape block
# segment_bytes = 0           # plain bytes of a segment; 0: 32 GiB, or a fiftieth of a small tape
# segment_members = 1000000
# frame_bytes = 4194304       # plain bytes of an independently readable piece
# threads = 0                 # compression threads; 0: one per core
# niceness = 10               # how far compressing stands back when other programs want the processors; 0: not
# pool = "default"
# buffer_bytes = 134217728    # memory that is filled before the drive starts; 0: none
# spool = false               # put whole segments on disk first, for sources slower than the drive
# spool_bytes = 0             # disk space for that; 0: half of what is free

[staging]
# limit_bytes = 0             # disk space for what was read from tape; 0: a quarter of what is free at start
# pinned_percent = 75         # how much of it pins may hold (`tapefs stage --pin`); the rest is for readers

[recall]
# deadline_s = 3600.0         # a read gives up after this, the recall goes on; 0: never

[http]
# listen = "127.0.0.1:8080"   # where `tapefs serve` listens beside its Unix socket
"""

_VIRTUAL = """\
[library]
driver = "virtual"
drives = {drives}
generation = {generation}
# Motion times of the virtual drives: "account" (counted only), "real" (waited for), "scaled:N" (N times faster).
motion = "{motion}"
"""

_before_rename = crash_point("init.rename.before")
_after_rename = crash_point("init.rename.after")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewHome:
    """What `tapefs init` is asked for."""

    path: Path
    #: A real library instead of a virtual one, which the next four are about. Its tapes are entered by the sidecar.
    real: LibrarySettings | None = None
    #: Number of blank tapes in the virtual library, and the size of each.
    tapes: int = 8
    tape_bytes: int = 2 * 1024**3
    drives: int = 1
    #: LTO generation of drives and tapes.
    generation: int = 9
    #: As in tapefs.toml.
    motion: str = "account"


def create_home(wanted: NewHome, now_ns: int) -> Home:
    """Make the state folder. Raises HomeError when something is in its place, UsageError, NotNow, OSError."""
    path = Path(os.path.realpath(wanted.path))
    if wanted.real is not None:
        _check_real(wanted.real, path)
    _refuse_existing(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _draft_folder(path) as draft:
        _fill(draft, wanted, now_ns)
        _before_rename()
        _put_in_place(draft, path)
        _after_rename()
    return open_home(path)


def _check_real(library: LibrarySettings, path: Path) -> None:
    try:
        check_library(library.config(path, path / "library"))
    except ValueError as error:
        raise UsageError(str(error)) from error


def _refuse_existing(path: Path) -> None:
    if (path / "tapefs.toml").exists():
        raise HomeError(f"{path} is a state folder already: use it, or choose another place with --home")
    if path.is_dir():
        if any(path.iterdir()):
            raise HomeError(f"{path} is not empty: choose another place with --home")
    elif path.exists():
        raise HomeError(f"{path} is no folder: choose another place with --home")


@contextmanager
def _draft_folder(path: Path) -> Iterator[Path]:
    """Yield an empty, locked folder beside `path`; removed afterwards unless it was renamed."""
    draft = path.with_name(f".{path.name}.init")
    draft.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(draft, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotNow(f"another `tapefs init` is making {path} right now: wait for it") from None
        os.fchmod(descriptor, 0o700)
        _clear(draft)
        try:
            yield draft
        except BaseException:
            # The lock is on the folder itself: if it was renamed already, there is nothing of this name to remove.
            shutil.rmtree(draft, ignore_errors=True)
            raise
    finally:
        os.close(descriptor)


def _clear(folder: Path) -> None:
    for child in folder.iterdir():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()


def _fill(draft: Path, wanted: NewHome, now_ns: int) -> None:
    home_settings = _SETTINGS.format(format=FORMAT, library=_library_section(wanted))
    for name in ("index", "trailers", "staging", "drives"):
        (draft / name).mkdir(mode=0o700)
    _write(draft / "token", secrets.token_hex(TOKEN_BYTES) + "\n", 0o600)
    if wanted.real is None:
        barcodes = _make_library(draft / "library", wanted)
    else:
        (draft / "library").mkdir(mode=0o700)
        barcodes = []
    _make_ledger(draft / "ledger", barcodes, wanted, now_ns)
    # Last: a folder with settings is a state folder.
    _write(draft / "tapefs.toml", home_settings, 0o600)
    sync_folder(draft)


def _library_section(wanted: NewHome) -> str:
    if wanted.real is None:
        return _VIRTUAL.format(drives=wanted.drives, generation=wanted.generation, motion=wanted.motion)
    real = wanted.real
    lines = ["[library]", f"driver = {_toml(real.driver)}"]
    if isinstance(real.drives, tuple):
        lines += ["drives = [", *(f"    {_toml(each)}," for each in real.drives), "]"]
    lines += [
        f"changer = {_toml(real.changer)}",
        f"generation = {real.generation}    # of tapes whose barcode does not tell",
    ]
    if real.any_filesystem:
        lines.append("any_filesystem = true")
    login = {name: each for name, each in msgspec.structs.asdict(real.iscsi).items() if isinstance(each, str) and each}
    if login:
        lines += ["", "[library.iscsi]", *(f"{name} = {_toml(value)}" for name, value in login.items())]
    return "\n".join(lines) + "\n"


def _toml(text: str) -> str:
    """Write a string as TOML has it: as JSON does, but for characters that are not ASCII."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _write(path: Path, text: str, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _make_library(folder: Path, wanted: NewHome) -> list[str]:
    try:
        return create_library(
            folder,
            tapes=wanted.tapes,
            tape_bytes=wanted.tape_bytes,
            drives=wanted.drives,
            generation=wanted.generation,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error


def _make_ledger(folder: Path, barcodes: list[str], wanted: NewHome, now_ns: int) -> None:
    ledger = LmdbLedger.create(folder, now_ns)
    try:
        installation_id = ledger.installation().installation_id
        for barcode in barcodes:
            ledger.add_volume(
                Volume(
                    volume_id=VolumeId(new_uuid()),
                    label=barcode,
                    pool=BackupSettings().pool,
                    installation_id=installation_id,
                    generation=wanted.generation,
                    capacity_bytes=wanted.tape_bytes,
                    block_size=BackupSettings().block_size,
                    state=VolumeState.BLANK,
                    created_at_ns=now_ns,
                )
            )
    finally:
        ledger.close()


def _put_in_place(draft: Path, path: Path) -> None:
    try:
        os.rename(draft, path)  # Over nothing, or over an empty folder.
    except OSError as error:
        raise HomeError(f"cannot make {path}: {error.strerror}; choose another place with --home") from error
    sync_folder(path.parent)
