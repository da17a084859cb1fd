"""The state folder: where everything lies, and its settings.

tapefs.toml     settings; `format` is the version of the folder's layout
token           the secret of HTTP over TCP, mode 0600
lock            held by the sidecar that owns the folder, or by `tapefs vtl`; has its pid, with TARGET_OWNER for that
sidecar.sock    its Unix socket
ledger/         LMDB
index/          one LMDB file per set, <set id>.lmdb, and beside it the names in it, <set id>.names
trailers/       the trailer of every segment as it is on tape, <segment id>.zst, until the set is complete and beyond
staging/        per segment <segment id>.plain (sparse) and <segment id>.map
library/        the virtual library
reports/        what runs and verifications found, <set id>.json and more; made when the first one is written
keys/           keys of encrypted tapes, <name>.<number>.json and .age; made with the first one
spool/          files without names: what is collected before it goes to tape, 7z archives,
                segments of jobs that are spooled, segments to be copied, streams
rebuild/        what a rebuild has found, <volume id>.json for each tape, until all that it names is there
catalog/        a copy of the catalog that is going to tape
notify.json     channels for notices that were set over HTTP, with their secrets, mode 0600
taf-database.json  where TAF's catalog is, for its import, with the password, mode 0600
recall.json     whether readers may recall, if an operator has switched it
recalls.jsonl   who waited for tape, newest last; when it is long it becomes recalls.jsonl.1
audit/          who did what: audit.jsonl, older files audit.N.jsonl, and the newest line's hash in head.json
drives/         per drive <name>.json, its newest status and counters, for `tapefs drives`, and what is known of its
                locates: <name>.lto9.locates and <name>.lto9.motion
sidecar.log     what sidecars said that a command started for itself
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from drivers.config import LibraryConfig
from tapefs.errors import HomeError
from tapefs.keys.ring import Keyring
from tapefs.settings.whole import Settings
from tapefs.taf.env_settings import with_environment

FORMAT = 1
VARIABLE = "TAPEFS_HOME"
#: The address of a sidecar elsewhere.
URL = "TAPEFS_URL"
#: Behind the pid in the lock file of a process that serves the library to others.
TARGET_OWNER = "target"


@dataclass(frozen=True, slots=True)
class Home:
    """Paths of a state folder and its settings; make it with `open_home`."""

    path: Path
    settings: Settings
    #: The keys that are unlocked in this process.
    keyring: Keyring = field(default_factory=Keyring, compare=False, repr=False)

    @property
    def token(self) -> Path:
        """File with the HTTP token."""
        return self.path / "token"

    @property
    def lock(self) -> Path:
        """File that the owning sidecar holds locked."""
        return self.path / "lock"

    @property
    def socket(self) -> Path:
        """The sidecar's Unix socket."""
        return self.path / "sidecar.sock"

    @property
    def ledger(self) -> Path:
        """Folder of the ledger."""
        return self.path / "ledger"

    @property
    def indexes(self) -> Path:
        """Folder of the namespace indexes."""
        return self.path / "index"

    @property
    def trailers(self) -> Path:
        """Folder of the local trailers."""
        return self.path / "trailers"

    @property
    def staging(self) -> Path:
        """Folder of the staging cache."""
        return self.path / "staging"

    @property
    def spool(self) -> Path:
        """Folder of what is collected before it goes to tape."""
        return self.path / "spool"

    @property
    def library(self) -> Path:
        """Folder of the virtual library, or of what is noted of a real one."""
        return self.path / "library"

    @property
    def library_config(self) -> LibraryConfig:
        """What drivers are told."""
        return self.settings.library.config(self.path, self.library)

    @property
    def drives(self) -> Path:
        """Folder of the drives' newest states."""
        return self.path / "drives"

    @property
    def unlocked(self) -> Path:
        """File with the fingerprints of the keys that the sidecar has unlocked."""
        return self.path / "unlocked.json"

    @property
    def keys(self) -> Path:
        """Folder of the keys."""
        return self.path / "keys"

    @property
    def reports(self) -> Path:
        """Folder of the reports."""
        return self.path / "reports"

    @property
    def copies(self) -> Path:
        """Folder of a copy of the catalog that is going to tape; empty at other times."""
        return self.path / "catalog"

    @property
    def audit(self) -> Path:
        """Folder of the audit log."""
        return self.path / "audit"

    @property
    def notify(self) -> Path:
        """What was set over HTTP about notices."""
        return self.path / "notify.json"

    @property
    def recall_mode(self) -> Path:
        """What an operator has switched recalls to."""
        return self.path / "recall.json"

    @property
    def recall_log(self) -> Path:
        """Who waited for tape."""
        return self.path / "recalls.jsonl"

    @property
    def rebuild(self) -> Path:
        """Folder of what a rebuild that is under way has found on tapes; none else."""
        return self.path / "rebuild"

    def damage(self, segment_id: str, volume_id: str) -> Path:
        """Return the file that says what a damaged copy has lost; there is none for a good copy."""
        return self.reports / f"{segment_id}.{volume_id}.damage.jsonl"

    def index(self, set_id: str) -> Path:
        """Return the namespace index of a set."""
        return self.indexes / f"{set_id}.lmdb"

    def names(self, set_id: str) -> Path:
        """Return the file with the names that a set has written; it may be missing."""
        return self.indexes / f"{set_id}.names"

    def trailer(self, segment_id: str) -> Path:
        """Return the local trailer of a segment."""
        return self.trailers / f"{segment_id}.zst"


def default_home() -> Path:
    """Return TAPEFS_HOME, or else `usual_home`."""
    return Path(os.environ[VARIABLE]) if VARIABLE in os.environ else usual_home()


def usual_home() -> Path:
    """Return /var/lib/tapefs for root, or ~/.local/share/tapefs."""
    if os.geteuid() == 0:
        return Path("/var/lib/tapefs")
    return Path.home() / ".local/share/tapefs"


def open_home(path: Path) -> Home:
    """Read the settings of the state folder at `path`. Raises HomeError with what to do."""
    try:
        text = (path / "tapefs.toml").read_bytes()
    except FileNotFoundError:
        raise HomeError(f"{path} is no state folder: make one with `tapefs --home {path} init`") from None
    except OSError as error:
        raise HomeError(f"cannot read {path}/tapefs.toml: {error.strerror}") from error
    raw = _parsed(path, text)
    try:
        if raw.get("format") != FORMAT:
            raise HomeError(
                f"{path} has layout {raw.get('format')}, this tapefs knows {FORMAT}: use the tapefs that made it"
            )
        raw = with_environment(raw, path)
        home = Home(path.absolute(), msgspec.convert(raw, Settings))
        _check_library(home)
    except msgspec.ValidationError as error:
        from tapefs.settings.wording import in_words  # Hardly anybody needs it.

        raise HomeError(f"{path}/tapefs.toml: {in_words(error, raw, Settings)}") from error
    except ValueError as error:
        raise HomeError(f"{path}/tapefs.toml: {error}") from error
    return home


def _parsed(path: Path, text: bytes) -> dict[str, Any]:
    """Return what stands in tapefs.toml. Raises HomeError."""
    try:
        return tomllib.loads(text.decode())
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise HomeError(f"{path}/tapefs.toml, line {line}: this is not UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise HomeError(f"{path}/tapefs.toml is no TOML: {error}") from error


def _check_library(home: Home) -> None:
    """Raise ValueError when the settings of a real library cannot be meant."""
    # The virtual one needs no look, and most commands no drivers.
    if home.library_config != LibraryConfig(folder=home.library, motion=home.settings.library.motion):
        from drivers.registry import check_library

        check_library(home.library_config)
