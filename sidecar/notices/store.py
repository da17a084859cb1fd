"""What is set over HTTP about notices: TAF's gateway, its flags and users, and webhooks. HOME/notify.json, mode 0600.

Blocking; one thread at a time (the sidecar holds a lock around changes). A change is on disk when it returns.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from tapefs.durable import replace_file
from tapefs.errors import HomeError
from tapefs.notice_kinds import FLAGS
from tapefs.settings.notices import NotifySettings

#: Name of the channel that is TAF's gateway.
GATEWAY = "taf-gateway"


class Gateway(msgspec.Struct, frozen=True, kw_only=True):
    """TAF's DingTalk gateway."""

    api_url: str
    api_key: str
    default_phone: str


class User(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who is told by the gateway, beside its default phone."""

    id: int
    phone: Annotated[str, Meta(min_length=1, max_length=40)]
    name: Annotated[str, Meta(min_length=1, max_length=200)]
    remark: str | None = None
    enabled: bool = True


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file."""

    gateway: Gateway | None = None
    #: TAF's flags that were switched off; all others are on.
    flags_off: tuple[str, ...] = ()
    users: tuple[User, ...] = ()
    next_user: int = 1
    webhooks: tuple[NotifySettings, ...] = ()

    def flags(self) -> dict[str, bool]:
        """Return all flags of TAF's."""
        return {flag: flag not in self.flags_off for flag in FLAGS}

    def gateway_settings(self) -> NotifySettings | None:
        """Return the gateway as a channel; None when there is none, or nobody to tell."""
        if self.gateway is None:
            return None
        phones = [self.gateway.default_phone, *(user.phone for user in self.users if user.enabled)]
        wanted = tuple(dict.fromkeys(phone for phone in phones if phone))
        if not wanted or not self.gateway.api_url:
            return None
        return NotifySettings(
            name=GATEWAY,
            kind="dingtalk",
            url=self.gateway.api_url,
            secret=self.gateway.api_key,
            phones=wanted,
            language="zh",
        )


def read_stored(path: Path) -> Stored:
    """Return what is set; nothing when there is no file. Raises HomeError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Stored)
    except FileNotFoundError:
        return Stored()
    except (OSError, msgspec.DecodeError) as error:
        raise HomeError(f"cannot read {path}: {error}; move it away and set the channels again") from error


def write_stored(path: Path, stored: Stored) -> None:
    """Replace the file. Raises HomeError."""
    try:
        replace_file(path, msgspec.json.format(msgspec.json.encode(stored)) + b"\n")
    except OSError as error:
        raise HomeError(f"cannot write {path}: {error.strerror}") from error
