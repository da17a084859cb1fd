"""Users of this system, by name or number. Asks the system's user database; may block for a moment."""

from __future__ import annotations

import pwd

from tapefs.errors import UsageError

#: (uid_t)-1 means nobody to system calls.
_HIGHEST_UID = 2**32 - 2


def uid_of(name: int | str) -> int:
    """Return the uid of a user. Raises UsageError."""
    if isinstance(name, int) or name.isdecimal():
        uid = int(name)
        if not 0 <= uid <= _HIGHEST_UID:
            raise UsageError(f"{name} is no number of a user")
        return uid
    try:
        return pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError):
        raise UsageError(f"this system has no user {name!r}") from None


def name_of(uid: int) -> str:
    """Return the name of a user; his number where he has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
