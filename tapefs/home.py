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
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from drivers.config import IscsiConfig, LibraryConfig
from tapefs.access.settings import AccessSettings, HttpSettings
from tapefs.dav_settings import DavSettings
from tapefs.errors import HomeError
from tapefs.keys.ring import Keyring
from tapefs.notice_settings import NoticeSettings, NotifySettings
from tapefs.taf.env_settings import TafSettings, with_environment

FORMAT = 1
VARIABLE = "TAPEFS_HOME"
#: Behind the pid in the lock file of a process that serves the library to others.
TARGET_OWNER = "target"
SMALLEST_SEGMENT_BYTES = 1024**2

_Natural = Annotated[int, Meta(ge=0)]
_Count = Annotated[int, Meta(ge=1)]


class IscsiSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How tapefs logs in to iSCSI targets. Paths are relative to the state folder."""

    #: Our name; empty for one that is made of the host's.
    initiator: str = ""
    #: CHAP: who we are, and the file with our secret.
    user: str = ""
    secret_file: str = ""
    #: Mutual CHAP: who the target must prove to be.
    target_user: str = ""
    target_secret_file: str = ""
    #: How long a connection that broke is tried to be made again.
    patience_s: Annotated[float, Meta(ge=0)] = 30.0


class LibrarySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which library and drives to use."""

    driver: Literal["virtual", "iscsi", "st", "itdt", "ltfs"] = "virtual"
    #: How many virtual ones; of real ones how each is reached, as its driver has it (docs/drives.md).
    drives: _Count | Annotated[tuple[str, ...], Meta(min_length=1)] = 1
    #: How a real changer is reached.
    changer: str = ""
    #: Of tapes whose barcode does not tell.
    generation: int = 9
    #: Virtual drives only: `account`, `real` or `scaled:N` (N times faster than real).
    motion: str = "account"
    #: A drive that asks to be cleaned gets a cleaning cartridge: `auto`, between two tapes; `ask`, when somebody says
    #: so; `off`: nobody is told, for libraries that do it themselves.
    cleaning: Literal["auto", "ask", "off"] = "ask"
    iscsi: IscsiSettings = IscsiSettings()
    #: The driver `ltfs` only: a disk with any file system may be a medium, too.
    any_filesystem: bool = False

    def __post_init__(self) -> None:
        """Refuse what no library can be."""
        if isinstance(self.drives, tuple) and len(set(self.drives)) < len(self.drives):
            raise ValueError("a drive is named twice in `drives`")

    @property
    def drive_count(self) -> int:
        """Number of drives."""
        return self.drives if isinstance(self.drives, int) else len(self.drives)

    def config(self, folder: Path, notes: Path) -> LibraryConfig:
        """Return what drivers are told; `folder` is the state folder, `notes` the library's in it."""
        return LibraryConfig(
            driver=self.driver,
            folder=notes,
            drives=self.drives if isinstance(self.drives, tuple) else (),
            changer=self.changer,
            motion=self.motion,
            any_filesystem=self.any_filesystem,
            iscsi=IscsiConfig(
                initiator=self.iscsi.initiator,
                user=self.iscsi.user,
                secret_file=folder / self.iscsi.secret_file if self.iscsi.secret_file else None,
                target_user=self.iscsi.target_user,
                target_secret_file=folder / self.iscsi.target_secret_file if self.iscsi.target_secret_file else None,
                patience_s=self.iscsi.patience_s,
            ),
        )


class BackupSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How backups are written."""

    block_size: Annotated[int, Meta(ge=4096, le=16 * 1024**2)] = 256 * 1024
    #: Plain bytes of a segment; 0 means 32 GiB, or a fiftieth of a small tape.
    segment_bytes: _Natural = 0
    segment_members: _Count = 1_000_000
    frame_bytes: Annotated[int, Meta(ge=64 * 1024, le=64 * 1024**2, multiple_of=512)] = 4 * 1024 * 1024
    #: What makes gzip members: `auto` is the quickest for the level, `pgzip` has zlib do it.
    gzip_engine: Literal["auto", "pgzip"] = "auto"
    #: Compression threads of jobs that name none; 0 means one per core.
    threads: Annotated[int, Meta(ge=0, le=1024)] = 0
    pool: Annotated[str, Meta(min_length=1)] = "default"
    #: Memory of the fill buffer before the drive; 0 means none. 128 MiB carry an LTO-9 drive over 0.7 s at its slowest.
    buffer_bytes: Annotated[int, Meta(ge=0, le=64 * 1024**3)] = 128 * 1024**2
    #: Jobs that do not say it themselves are spooled: whole segments go to disk first.
    spool: bool = False
    #: Disk space that the spool of a job may take; 0 means half of what is free when the job begins.
    spool_bytes: _Natural = 0
    #: A stream is stored in parts of this size, each of which lies on disk as a whole before it goes to tape; a quarter
    #: of what is free there is the most.
    stream_part_bytes: Annotated[int, Meta(ge=1024**2)] = 4 * 1024**3
    #: A client that sends nothing of its stream for so long is given up.
    stream_idle_s: Annotated[float, Meta(gt=0)] = 3600.0

    def __post_init__(self) -> None:
        """Refuse segments that would hold little but headers and trailers."""
        if 0 < self.segment_bytes < SMALLEST_SEGMENT_BYTES:
            raise ValueError(f"segment_bytes is 0 or at least {SMALLEST_SEGMENT_BYTES}")


class StagingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The cache of what was read from tape."""

    #: Disk space it may take; 0 means a quarter of what is free at start.
    limit_bytes: _Natural = 0
    #: How much of it pins may hold; the rest is for readers.
    pinned_percent: Annotated[int, Meta(ge=0, le=95)] = 75


class RecallRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What becomes of a read that has to wait for tape; a rule matches when all that it names does."""

    action: Literal["allow", "deny", "nonblock", "ask"]
    #: Any of these users, by number or name; empty for all.
    users: tuple[int | str, ...] = ()
    #: Any of these groups, by number or name.
    groups: tuple[int | str, ...] = ()
    #: Any of these programs, with wildcards as in a shell.
    commands: tuple[Annotated[str, Meta(min_length=1)], ...] = ()
    #: Size of the file; 0 means no bound.
    min_bytes: _Natural = 0
    max_bytes: _Natural = 0

    def __post_init__(self) -> None:
        """Refuse what can never match."""
        if 0 < self.max_bytes < self.min_bytes:
            raise ValueError("max_bytes is less than min_bytes: no file has such a size")
        if any("/" in command for command in self.commands):
            raise ValueError("commands are names of programs, without a path")


class RecallSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long readers wait for tape, and which may."""

    #: A blocking read gives up after this; the recall goes on. 0 means never.
    deadline_s: Annotated[float, Meta(ge=0)] = 3600.0
    #: What readers get that no rule names; `off` is for all, whatever the rules say. See `tapefs recall`.
    mode: Literal["on", "off", "ask"] = "on"
    #: The first that matches counts.
    rules: tuple[RecallRule, ...] = ()
    #: What a user may have fetched within an hour; 0 means no limit.
    user_hourly_bytes: _Natural = 0
    user_hourly_tapes: _Natural = 0
    #: Do these two limits hold for root as well?
    limit_root: bool = False
    #: A backup leaves its drive at the end of a segment when a reader has waited so long for it; 0 means never.
    backup_yields_after_s: Annotated[float, Meta(ge=0)] = 60.0
    #: Reads of one user that may wait in a mount; it has room for 4,936 in all.
    user_waiting_reads: _Count = 2400


EncryptedBy = Literal["payload", "drive", "auto"]


class EncryptionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """With which keys new tapes are encrypted."""

    #: Name of a key (`tapefs key`); empty: new tapes are not encrypted.
    key: str = ""
    #: The same by pool; a pool that is not named here has `key`.
    pools: dict[str, str] = {}
    #: Who encrypts new tapes: `payload` what goes to the drive, `drive` the drive itself, `auto` the drives if all can.
    by: EncryptedBy = "payload"
    #: The same by pool; a pool that is not named here has `by`.
    pools_by: dict[str, EncryptedBy] = {}
    #: File with the passphrase that unlocks the keys it fits when a sidecar starts; relative to the state folder.
    passphrase_file: str = ""

    def key_of(self, pool: str) -> str:
        """Return the key's name for new tapes of a pool; empty for none."""
        return self.pools.get(pool, self.key)

    def by_of(self, pool: str) -> EncryptedBy:
        """Return who encrypts new tapes of a pool, if they are encrypted."""
        return self.pools_by.get(pool, self.by)


class HookSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A command that schedules may run before and behind what they do."""

    #: Program, by its whole path, and arguments; no shell looks at them.
    argv: Annotated[tuple[str, ...], Meta(min_length=1)]
    #: It is killed when it takes longer.
    timeout_s: Annotated[float, Meta(gt=0, le=7 * 86_400)] = 600.0
    #: Variables beside PATH, LANG and those that say what runs.
    environment: dict[str, str] = {}

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        if not self.argv[0].startswith("/"):
            raise ValueError(f"the program of a hook is named by its whole path, not {self.argv[0]!r}")


class WlcgSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What clients of the WLCG Tape REST API are told."""

    #: Empty for the host's name.
    sitename: str = ""
    description: str = ""
    #: Where they reach the API, without its path: `https://tape.example:8443`; empty: where they have asked.
    uri: str = ""
    #: So long a file stays staged whose client has not said.
    lifetime_s: Annotated[int, Meta(gt=0)] = 3 * 86_400


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole of tapefs.toml; unknown keys are refused."""

    format: int
    library: LibrarySettings = LibrarySettings()
    backup: BackupSettings = BackupSettings()
    staging: StagingSettings = StagingSettings()
    recall: RecallSettings = RecallSettings()
    http: HttpSettings = HttpSettings()
    encryption: EncryptionSettings = EncryptionSettings()
    access: AccessSettings = AccessSettings()
    #: Channels by which people are told what happens.
    notify: tuple[NotifySettings, ...] = ()
    notices: NoticeSettings = NoticeSettings()
    #: By name; see docs/schedules.md.
    hooks: dict[str, HookSettings] = {}
    wlcg: WlcgSettings = WlcgSettings()
    taf: TafSettings = TafSettings()
    dav: DavSettings = DavSettings()


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
    try:
        raw = tomllib.loads(text.decode())
        if raw.get("format") != FORMAT:
            raise HomeError(
                f"{path} has layout {raw.get('format')}, this tapefs knows {FORMAT}: use the tapefs that made it"
            )
        home = Home(path.absolute(), msgspec.convert(with_environment(raw, path), Settings))
        _check_library(home)
    except (ValueError, msgspec.ValidationError) as error:
        raise HomeError(f"{path}/tapefs.toml: {error}") from error
    return home


def _check_library(home: Home) -> None:
    """Raise ValueError when the settings of a real library cannot be meant."""
    # The virtual one needs no look, and most commands no drivers.
    if home.library_config != LibraryConfig(folder=home.library, motion=home.settings.library.motion):
        from drivers.registry import check_library

        check_library(home.library_config)
