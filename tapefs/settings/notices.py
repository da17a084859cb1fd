"""The settings of notices: `[[notify]]` and `[notices]` of tapefs.toml."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class NotifySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One channel by which people are told what happens; see docs/notifications.md."""

    #: For people, and for `tapefs notify`.
    name: Annotated[str, Meta(pattern=r"\A[a-z0-9][a-z0-9._-]{0,39}\Z")]
    #: `apprise`: a URL as apprise has it; `webhook`: signed JSON; `dingtalk`: TAF's gateway.
    kind: Literal["apprise", "webhook", "dingtalk"] = "apprise"
    #: Where it leads; or a file of mode 0600 that holds that, relative to the state folder.
    url: str = ""
    url_file: str = ""
    #: What webhooks are signed with; the key of a gateway.
    secret: str = ""
    #: Of webhooks and gateways: a PEM file with the certificates of whom we believe instead of the system's.
    #: It is relative to the state folder.
    ca_file: str = ""
    #: Of a gateway: who gets it.
    phones: tuple[Annotated[str, Meta(min_length=1, max_length=40)], ...] = ()
    #: Kinds of notices, with wildcards (`backup.*`); empty: warnings and alarms.
    events: tuple[Annotated[str, Meta(min_length=1)], ...] = ()
    #: Of titles.
    language: Literal["en", "zh"] = "en"

    def __post_init__(self) -> None:
        """Refuse a channel that leads nowhere."""
        if bool(self.url) == bool(self.url_file):
            raise ValueError(f"channel {self.name} needs either `url` or `url_file`")
        if self.ca_file and self.kind == "apprise":
            raise ValueError(
                f"channel {self.name}: `ca_file` is for webhooks and gateways; apprise goes by the system's"
            )


class NoticeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is told, and how far it may go."""

    #: Webhooks and gateways that were set over HTTP may lead to addresses that are not of the public internet …
    allow_private: bool = False
    #: … and need no TLS. Those of tapefs.toml may always.
    allow_http: bool = False
    #: A notice that could not be delivered for so long is given up.
    give_up_after_s: Annotated[float, Meta(gt=0)] = 86_400.0
    #: Warn when less than this is left of a pool's tapes, and of the disk of the state folder.
    capacity_percent: Annotated[int, Meta(ge=0, le=100)] = 10
