"""How a logical unit behind iSCSI is named, and the secrets that open it. Pure.

    iscsi://[USER[%PASSWORD]@]HOST[:PORT]/TARGET/LUN        iscsi://vtl.example/iqn.2026-01.example:library/1

`%XX` in the target's name stands for a byte, as in any URL. An IPv6 address is put into brackets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote

PORT = 3260
#: A LUN has 14 bits on the wire, as this is spoken.
LARGEST_LUN = 16383
#: libiscsi cuts longer names and secrets off.
LONGEST_TEXT = 255

_URL = re.compile(
    r"iscsi://"
    r"(?:(?P<user>[^%@/]+)(?:%(?P<password>[^@/]*))?@)?"
    r"(?P<host>\[[0-9A-Fa-f:.%a-z]+\]|[^:/@\[\]]+)(?::(?P<port>\d{1,5}))?"
    r"/(?P<target>[^/]+)/(?P<lun>\d{1,5})"
)


@dataclass(frozen=True, slots=True)
class Chap:
    """Who we are to the target, and who it must be to us. Secrets are not shown."""

    user: str
    secret: str = field(repr=False)
    #: Mutual CHAP: the target must prove that it knows this secret; empty for one-way.
    target_user: str = ""
    target_secret: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        """Refuse what would be sent cut off, or not at all. Raises ValueError."""
        if not self.user or not self.secret:
            raise ValueError("CHAP needs a user and a secret")
        if bool(self.target_user) != bool(self.target_secret):
            raise ValueError("mutual CHAP needs the user and the secret of the target, both")
        if self.target_secret and self.target_secret == self.secret:
            raise ValueError("mutual CHAP needs two different secrets: with one, a false target can mirror ours")
        for text in (self.user, self.secret, self.target_user, self.target_secret):
            if len(text.encode()) > LONGEST_TEXT or "\0" in text:
                raise ValueError(
                    f"users and secrets of CHAP have at most {LONGEST_TEXT} bytes, and none of them is zero"
                )


@dataclass(frozen=True, slots=True)
class Address:
    """One logical unit of one target."""

    host: str
    port: int
    target: str
    lun: int
    chap: Chap | None = None

    @property
    def portal(self) -> str:
        """Host and port as libiscsi takes them."""
        return f"{self.host}:{self.port}"

    def __str__(self) -> str:
        """Return the URL without user and password: it goes into messages."""
        return f"iscsi://{self.portal}/{self.target}/{self.lun}"


def parse_url(url: str) -> Address:
    """Read a URL. Raises ValueError that says what is wrong with it, without its password."""
    shown = re.sub(r"%[^@/]*@", "%…@", url)
    found = _URL.fullmatch(url)
    if found is None:
        raise ValueError(f"{shown!r} is no address of a drive: write iscsi://HOST[:PORT]/TARGET-NAME/LUN")
    port, lun = int(found["port"] or PORT), int(found["lun"])
    if not 1 <= port <= 65535:
        raise ValueError(f"{shown!r}: there is no port {port}")
    if lun > LARGEST_LUN:
        raise ValueError(f"{shown!r}: a LUN is at most {LARGEST_LUN}")
    target = unquote(found["target"])
    if not re.fullmatch(r"(iqn|eui|naa)\.[^\s\0]+", target) or len(target) > 223:
        raise ValueError(f"{shown!r}: {target!r} is no iSCSI name, which begins with iqn., eui. or naa.")
    if found["user"] and not found["password"]:
        raise ValueError(f"{shown!r} has a user but no password")
    chap = Chap(found["user"], found["password"]) if found["user"] else None
    return Address(found["host"], port, target, lun, chap)
