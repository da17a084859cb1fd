"""[library]: which drives and changer, and how they are reached."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from drivers.config import IscsiConfig, LibraryConfig

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
