"""Who may have bytes fetched from tape: the rules of the settings, and what an operator has switched recalls to.

No I/O but the look-up of names when it is made, and the file that keeps the switch. One task at a time.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

from tapefs.errors import HomeError
from tapefs.home import Home
from tapefs.settings.recall import RecallRule, RecallSettings

#: The kernel cuts the name of a process to this.
COMM_BYTES = 15
_WILDCARDS = frozenset("*?[")


class Mode(Enum):
    """What readers get that no rule names."""

    ON = "on"
    #: Nobody gets anything, whatever the rules say.
    OFF = "off"
    ASK = "ask"


class Action(Enum):
    """What becomes of a read that has to wait for tape."""

    ALLOW = "allow"
    DENY = "deny"
    #: The bytes are fetched, but the reader does not wait.
    NONBLOCK = "nonblock"
    #: It waits until an operator says yes or no.
    ASK = "ask"


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads what, as the mount saw it; what it could not see is zero or empty."""

    uid: int = 0
    gids: tuple[int, ...] = ()
    pid: int = 0
    #: Names of the program: its file, its process, its thread.
    commands: tuple[str, ...] = ()
    #: Where the file is in the mount, and its size.
    path: str = ""
    size_bytes: int = 0

    @property
    def command(self) -> str:
        """The program, for people."""
        return self.commands[0] if self.commands else ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a read, and why: a sentence for whoever is refused."""

    action: Action
    reason: str


@dataclass(frozen=True, slots=True)
class _Rule:
    number: int
    action: Action
    uids: frozenset[int]
    gids: frozenset[int]
    commands: tuple[str, ...]
    min_bytes: int
    max_bytes: int

    def matches(self, reader: Reader) -> bool:
        if not self.concerns(reader):
            return False
        return self.min_bytes <= reader.size_bytes and not 0 < self.max_bytes < reader.size_bytes

    def concerns(self, reader: Reader) -> bool:
        """Is it about this reader, whatever the size of the file?"""
        if self.uids and reader.uid not in self.uids:
            return False
        if self.gids and self.gids.isdisjoint(reader.gids):
            return False
        return not self.commands or any(_is_named(pattern, reader.commands) for pattern in self.commands)


def _is_named(pattern: str, names: Sequence[str]) -> bool:
    if any(fnmatchcase(name, pattern) for name in names):
        return True
    if _WILDCARDS & set(pattern):
        return False
    return len(pattern) > COMM_BYTES and pattern[:COMM_BYTES] in names


class _Switch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    mode: Mode


class Guard:
    """Decides by the first rule that matches, else by the mode."""

    def __init__(self, home: Home) -> None:
        """Read rules and switch. Raises HomeError."""
        settings = home.settings.recall
        self._rules = rules_of(settings, home.path / "tapefs.toml")
        self._default = Mode(settings.mode)
        self._file = home.recall_mode
        self.mode = _switched(self._file) or self._default

    def judge(self, reader: Reader) -> Verdict:
        """Return what becomes of a read that has to wait."""
        if self.mode is Mode.OFF:
            return Verdict(Action.DENY, "recalls are switched off: `tapefs recall on` allows them")
        for rule in self._rules:
            if rule.matches(reader):
                return Verdict(rule.action, f"rule {rule.number} of [recall] says {rule.action.value}")
        if self.mode is Mode.ASK:
            return Verdict(Action.ASK, "an operator is asked")
        return Verdict(Action.ALLOW, "")

    def allows_all(self, reader: Reader) -> bool:
        """Does this reader get files of every size without being asked?"""
        if self.mode is Mode.OFF:
            return False
        for rule in self._rules:
            if rule.concerns(reader):
                if rule.action is not Action.ALLOW:
                    return False
                if not rule.min_bytes and not rule.max_bytes:
                    return True
        return self.mode is Mode.ON

    def switch(self, mode: Mode) -> None:
        """Change the mode; it stays so when the sidecar is started again. Blocks for a small file. Raises OSError."""
        if mode is self._default:
            self._file.unlink(missing_ok=True)
        else:
            draft = self._file.with_suffix(".new")
            draft.write_bytes(msgspec.json.encode(_Switch(mode)))
            os.replace(draft, self._file)
        self.mode = mode


def _switched(path: Path) -> Mode | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Switch).mode
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise HomeError(f"cannot read {path} ({error}): remove it, and switch anew with `tapefs recall`") from error


def rules_of(settings: RecallSettings, path: Path) -> tuple[_Rule, ...]:
    """Return the rules with the names of users and groups looked up. Raises HomeError when one is unknown."""
    return tuple(_rule(number, rule, path) for number, rule in enumerate(settings.rules, 1))


def _rule(number: int, rule: RecallRule, path: Path) -> _Rule:
    def numbers(names: Sequence[int | str], kind: str, look_up: Callable[[str], int]) -> frozenset[int]:
        found = set()
        for name in names:
            try:
                found.add(name if isinstance(name, int) else look_up(name))
            except KeyError:
                raise HomeError(f"{path}: rule {number} of [recall]: there is no {kind} {name!r}") from None
        return frozenset(found)

    return _Rule(
        number,
        Action(rule.action),
        numbers(rule.users, "user", lambda name: pwd.getpwnam(name).pw_uid),
        numbers(rule.groups, "group", lambda name: grp.getgrnam(name).gr_gid),
        rule.commands,
        rule.min_bytes,
        rule.max_bytes,
    )
