"""What makes a user or a token acceptable, whichever interface asks for it. Asks the system for its users."""

from __future__ import annotations

import math
from collections.abc import Sequence

from catalog.access_records import AccessRole
from sidecar.http.requests import Invalid
from tapefs.access.scopes import check_scope
from tapefs.access.uids import uid_of
from tapefs.errors import UsageError

LONGEST_NAME = 64
MOST_SCOPES = 100
LONGEST_DAYS = 3660
_NS_PER_DAY = 86_400 * 10**9


def check_name(name: str, field: str) -> str:
    """Return the name of a user. Raises Invalid."""
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable() or any(char in " :/@,;\"'" for char in name):
        message = (
            f"must be 1 to {LONGEST_NAME} characters that can be printed, without blanks and any of : / @ , ; ' \""
        )
        raise Invalid("value_error", ["body", field], message, name)
    return name


def check_title(title: str) -> str:
    """Return what a token is called. Raises Invalid."""
    if len(title) > LONGEST_NAME or not title.isprintable():
        message = f"must be at most {LONGEST_NAME} characters that can be printed"
        raise Invalid("value_error", ["body", "name"], message, title)
    return title


def check_role(role: str, *, may_be_none: bool = False) -> AccessRole:
    """Return a role. Raises Invalid."""
    allowed = [each.value for each in AccessRole if each.value or may_be_none]
    if role not in allowed:
        raise Invalid("enum", ["body", "role"], f"must be one of {', '.join(filter(None, allowed))}", role)
    return AccessRole(role)


def check_scopes(scopes: Sequence[str]) -> list[str]:
    """Return scopes in their plain form. Raises Invalid."""
    if len(scopes) > MOST_SCOPES:
        raise Invalid("too_long", ["body", "scopes"], f"must be at most {MOST_SCOPES}")
    found = []
    for place, scope in enumerate(scopes):
        try:
            found.append(check_scope(scope))
        except UsageError as error:
            raise Invalid("value_error", ["body", "scopes", place], str(error), scope) from error
    return found


def check_uid(name: int | str | None) -> int | None:
    """Return the uid of a user of this system. Raises Invalid. May block for a moment."""
    if name is None:
        return None
    try:
        return uid_of(name)
    except UsageError as error:
        raise Invalid("value_error", ["body", "uid"], str(error), name) from error


def end_ns(days: float, now_ns: int) -> int:
    """Return when a token runs out that lives so many days; 0 for never. Raises Invalid."""
    if not math.isfinite(days) or not 0 <= days <= LONGEST_DAYS:
        raise Invalid("value_error", ["body", "days"], f"must be 0 (never) to {LONGEST_DAYS}", None)
    return now_ns + int(days * _NS_PER_DAY) if days else 0
