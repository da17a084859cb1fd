"""What a driver is told about the library that it drives. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class IscsiConfig:
    """How we log in to iSCSI targets. Secrets are not here but in files, or in the environment."""

    #: Our name; empty for one that is made of the host's.
    initiator: str = ""
    #: CHAP: who we are, and the file with our secret. Empty for a target that lets everybody in.
    user: str = ""
    secret_file: Path | None = None
    #: Mutual CHAP: who the target must prove to be.
    target_user: str = ""
    target_secret_file: Path | None = None
    #: How long a connection that broke is tried to be made again, for switches and gateways that start anew.
    patience_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryConfig:
    """A library: one driver for its drives and its changer."""

    #: A name of the table in `drivers.registry`.
    driver: str = "virtual"
    #: Folder of the virtual library, or for what a driver has to note.
    folder: Path
    #: How drives and changer are reached, in the driver's own way: by number from 0. Empty for the virtual library,
    #: whose folder tells all.
    drives: tuple[str, ...] = ()
    changer: str = ""
    #: Virtual drives only: `account`, `real` or `scaled:N`.
    motion: str = "account"
    iscsi: IscsiConfig = IscsiConfig()
    #: The driver `ltfs` only: folders of any file system may be media.
    any_filesystem: bool = False
