"""What tapefs.toml says of who may call, and from where. See docs/access.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

RoleName = Literal["viewer", "operator", "admin"]
_Count = Annotated[int, Meta(ge=1)]
_Text = Annotated[str, Meta(min_length=1)]


class Trusted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An address whose callers need no token: every program and every user there has the role."""

    #: An address, or a network such as `10.0.0.0/8`.
    address: str
    role: RoleName
    #: Which user of this system they stand for; none if it is not said.
    uid: int | str | None = None

    def __post_init__(self) -> None:
        """Refuse what is no network."""
        network_of(self.address)


class HttpSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the sidecar listens beside its Unix socket, and what it bears there."""

    listen: str = "127.0.0.1:8080"
    #: Names, beside addresses of loopback and that of `listen`, that a Host header may have.
    hosts: tuple[_Text, ...] = ()
    #: Files in PEM, relative to the state folder: with both of them TCP speaks TLS only.
    tls_certificate: str = ""
    tls_key: str = ""
    #: Callers without a token.
    trusted: tuple[Trusted, ...] = ()
    #: Addresses of proxies whose X-Forwarded-For is believed.
    proxies: tuple[str, ...] = ()
    #: Of the Unix socket: a group of this system whose members may use it, too, and their role.
    socket_group: str = ""
    socket_role: RoleName = "operator"
    #: Requests of one caller over TCP in a minute, and at one time.
    requests_per_minute: _Count = 120_000
    requests_at_once: _Count = 1500
    #: The same for an address that has not said who it is.
    unknown_per_minute: _Count = 600
    unknown_at_once: _Count = 32

    def __post_init__(self) -> None:
        """Refuse half of what TLS needs, and what is no network."""
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError("tls_certificate and tls_key go together")
        for address in self.proxies:
            network_of(address)


class SessionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long somebody who has given a password stays in."""

    #: Without a request.
    idle_minutes: _Count = 60
    #: In any case.
    longest_hours: _Count = 12


class Issuer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Somebody else whose bearer tokens are believed: an OpenID Connect provider."""

    #: As its tokens have it in `iss`.
    issuer: _Text
    #: One of these must be in a token's `aud`.
    audience: Annotated[tuple[_Text, ...], Meta(min_length=1)]
    #: Its public keys: a file (relative to the state folder) or a URL with https; http to loopback only.
    jwks: _Text
    algorithms: Annotated[
        tuple[Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"], ...],
        Meta(min_length=1),
    ] = ("RS256", "ES256")
    #: How far its clock may be off.
    leeway_s: Annotated[int, Meta(ge=0, le=600)] = 30
    #: The claim that tells roles, and which of its values mean which; `*` means any token.
    role_claim: str = "groups"
    roles: dict[str, RoleName] = {}
    #: Are storage.* in the claim `scope` believed?
    storage_scopes: bool = True
    #: The claim with the name of a user of this system; empty: tokens stand for nobody here.
    user_claim: str = ""


class AccessSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What calls over TCP may touch on this host; see `tapefs.access.places`."""

    #: Folders that may be backed up, and beneath which files may be restored. Admins may without being in a list.
    sources: tuple[_Text, ...] = ()
    restore_targets: tuple[_Text, ...] = ()
    sessions: SessionSettings = SessionSettings()
    issuers: tuple[Issuer, ...] = ()

    def __post_init__(self) -> None:
        """Refuse paths that depend on where the sidecar runs."""
        for path in (*self.sources, *self.restore_targets):
            if not path.startswith("/") or ".." in path.split("/"):
                raise ValueError(f"{path!r} is no absolute path without `..`")


def network_of(address: str) -> IPv4Network | IPv6Network:
    """Return an address or network. Raises ValueError."""
    import ipaddress  # Listings read the settings, and have none of these.

    try:
        return ipaddress.ip_network(address)
    except ValueError as error:
        raise ValueError(f"{address!r} is neither an address nor a network: {error}") from None
