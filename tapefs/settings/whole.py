"""The whole of tapefs.toml."""

from __future__ import annotations

import msgspec

from tapefs.settings.access import AccessSettings, HttpSettings
from tapefs.settings.backup import BackupSettings, StagingSettings
from tapefs.settings.dav import DavSettings
from tapefs.settings.encryption import EncryptionSettings
from tapefs.settings.hooks import HookSettings
from tapefs.settings.library import LibrarySettings
from tapefs.settings.notices import NoticeSettings, NotifySettings
from tapefs.settings.recall import RecallSettings
from tapefs.settings.wlcg import WlcgSettings
from tapefs.taf.env_settings import TafSettings


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
