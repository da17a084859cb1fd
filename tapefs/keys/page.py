"""A key on paper: what to print, and reading it back when somebody has typed it in. Pure functions."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tapefs.keys.identity import Identity
    from tapefs.keys.store import Key

_PREFIX = "AGE-SECRET-KEY-1"
_GROUP, _GROUPS_IN_A_ROW = 4, 4
#: Bech32 without its prefix: 52 digits for 32 bytes, and 6 of checksum.
_DIGITS = 58
_HALVES = {(0, 0): " ", (1, 0): "\N{UPPER HALF BLOCK}", (0, 1): "\N{LOWER HALF BLOCK}", (1, 1): "\N{FULL BLOCK}"}
#: A row of the page: its number, its groups, what checks it.
_ROW = re.compile(r"\s*([1-9])\s*\)\s*([A-Z0-9 ]+?)\s*\[\s*([0-9A-F]{4})\s*\]\s*", re.IGNORECASE)


def page(key: Key, identity: Identity) -> str:
    """Return the page: plain text of at most 78 columns."""
    rows = "\n".join(f"    {row}" for row in _rows(identity.text))
    return f"""\
TAPEFS KEY {key.title}
{"=" * 78}

Who has this page can read every tape that is encrypted with this key.
Who has neither this page nor the key file and its passphrase never can.
Keep it where the tapes are not.

Fingerprint   {" ".join(_groups(key.fingerprint))}
              (stands in tape file 1 of each tape, and in each HEADER)
Public key    {key.recipient}
Secret key    {_PREFIX}, then without a space
{rows}

The four characters in brackets check a row, so that a mistyped one is found.
`tapefs key import NAME FILE` takes these rows as they are, brackets and all.

WITHOUT TAPEFS
{"-" * 78}
1. Put the secret key on one line of a file key.txt, without any spaces:
   {_PREFIX}... The last of these must print the fingerprint:
     chmod 600 key.txt
     age-keygen -y key.txt
     age-keygen -y key.txt | tr -d '\\n' | sha256sum | cut -c-32
2. Each HEADER on a tape is clear text and has the commands that restore what
   follows it. They are of this kind:
     mt -f /dev/nst0 setblk 0
     mt -f /dev/nst0 rewind
     mt -f /dev/nst0 fsf N
     dd if=/dev/nst0 bs=1M | age -d -i key.txt | zstd -dc | tar -xpf -
   age is a package of Debian and others, and a format: age-encryption.org/v1.

THE SECRET KEY FOR A CAMERA
{"-" * 78}
{_qr_code(identity.text)}"""


def without_marks(text: bytes) -> list[str]:
    """Return the secret keys in a text: lines of an age key file, or the rows of a page, checked.

    Raises UsageError, which never repeats what is secret.
    """
    from tapefs.errors import UsageError

    lines = text.decode("utf-8", "replace").splitlines()
    rows = [match for line in lines if (match := _ROW.fullmatch(line))]
    if not rows:
        words = ("".join(line.split()) for line in lines if not line.lstrip().startswith("#"))
        return [word for word in words if word.upper().startswith(_PREFIX)]
    for place, (number, groups, check) in enumerate(((row[1], row[2], row[3]) for row in rows), 1):
        if int(number) != place:
            raise UsageError(f"row {place} is missing, or the rows are not in their order")
        if _check(groups) != check.upper():
            raise UsageError(f"row {place} of the key is mistyped: compare it with the page")
    secret = _PREFIX + "".join("".join(row[2].split()) for row in rows).upper()
    if len(secret) != len(_PREFIX) + _DIGITS:
        raise UsageError("rows are missing at the end of the key")
    return [secret]


def _rows(text: str) -> list[str]:
    groups = _groups(text.removeprefix(_PREFIX))
    rows = [" ".join(groups[at : at + _GROUPS_IN_A_ROW]) for at in range(0, len(groups), _GROUPS_IN_A_ROW)]
    return [f"{number}) {row}  [{_check(row)}]" for number, row in enumerate(rows, 1)]


def _groups(text: str) -> list[str]:
    return [text[at : at + _GROUP] for at in range(0, len(text), _GROUP)]


def _check(row: str) -> str:
    return hashlib.sha256("".join(row.split()).upper().encode("ascii")).hexdigest()[:4].upper()


def _qr_code(text: str) -> str:
    """Return the code in half blocks, dark on light as paper is; cameras take it from dark screens as well."""
    import segno

    rows = [list(row) for row in segno.make(text, error="m", micro=False).matrix_iter(border=2)]
    rows += [[0] * len(rows[0])] * (len(rows) % 2)
    return "".join(
        "".join(_HALVES[above, below] for above, below in zip(upper, lower, strict=True)).rstrip() + "\n"
        for upper, lower in zip(rows[::2], rows[1::2], strict=True)
    )
