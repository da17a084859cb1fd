"""The sets of a ledger as people name them: by id, by the beginning of an id, by job and time. Pure and immutable."""

from __future__ import annotations

from datetime import UTC, datetime

from catalog.ids import SetId, SetNumber
from catalog.records import BackupSet, SetState
from tapefs.errors import NoSuchThing

#: A shorter beginning of an id is refused: it would soon mean another set.
SHORTEST_PREFIX = 4
LATEST = "latest"

_NS_PER_S = 1_000_000_000


class Roster:
    """All sets at one moment."""

    def __init__(self, sets: list[BackupSet]) -> None:
        #: What it was made from.
        self.sets = sets
        everything = sorted(sets, key=lambda each: each.number)
        #: Complete sets, by number.
        self.complete: list[BackupSet] = [each for each in everything if each.state is SetState.COMPLETE]
        self._by_id: dict[SetId, BackupSet] = {each.set_id: each for each in everything}
        self._complete_by_number: dict[SetNumber, BackupSet] = {each.number: each for each in self.complete}
        #: Complete sets by name of their job, oldest first.
        self.by_name: dict[str, list[BackupSet]] = {}
        # One that came back from tape later may have a higher number than younger ones.
        for each in sorted(self.complete, key=lambda each: (each.order_ns, each.number)):
            self.by_name.setdefault(each.name, []).append(each)
        self._time_names = _time_names(everything)

    def by_number(self, number: SetNumber) -> BackupSet:
        """Return a complete set. Raises NoSuchThing."""
        try:
            return self._complete_by_number[number]
        except KeyError:
            raise NoSuchThing(f"there is no complete set number {number}") from None

    def known(self, set_id: SetId) -> BackupSet | None:
        """Return a set in whatever state."""
        return self._by_id.get(set_id)

    def time_name(self, set_id: SetId) -> str:
        """Return the set's name in its job's folder. Raises NoSuchThing."""
        try:
            return self._time_names[set_id]
        except KeyError:
            raise NoSuchThing(f"there is no set {set_id}") from None

    def find(self, text: str) -> BackupSet:
        """Return the complete set that `text` names: id, beginning of an id, NAME, NAME/latest or NAME/TIME.

        Raises NoSuchThing with what to do.
        """
        found = self.find_any(text)
        if found.state is not SetState.COMPLETE:
            raise NoSuchThing(f"set {found.set_id} is {found.state.value}, and only complete sets can be read")
        return found

    def find_any(self, text: str) -> BackupSet:
        """Return the set that `text` names; by an id or its beginning also one that is not complete.

        Raises NoSuchThing with what to do.
        """
        text = text.rstrip("/")
        name, slash, time = text.partition("/")
        if slash:
            return self._at_time(name, time)
        if text in self._by_id:
            return self._by_id[SetId(text)]
        if text in self.by_name:
            return self.by_name[text][-1]
        return self._by_prefix(text)

    def _at_time(self, name: str, time: str) -> BackupSet:
        runs = self.by_name.get(name, [])
        if runs and time == LATEST:
            return runs[-1]
        for each in runs:
            if self._time_names[each.set_id] == time:
                return each
        if runs:
            inside = "" if time[:1].isdigit() else f"; a path within a set stands behind a colon: {name}:{time}"
            newest = f"its newest is {name}/{self._newest(name)}"
            raise NoSuchThing(f"job {name} has no complete set of {time}; {newest}{inside}")
        raise self._missing(name)

    def _missing(self, text: str) -> NoSuchThing:
        """Return what it means that nothing complete has that name: there may be sets that are not."""
        found = [each for each in self.sets if each.name == text]
        if not found:
            return NoSuchThing(f"there is no set or job named {text!r}; `tapefs sets` lists them")
        newest = max(found, key=lambda each: each.number)
        return NoSuchThing(
            f"{text} has no complete set; the newest, {newest.set_id[:8]}, is {newest.state.value}:"
            f" `tapefs report {newest.set_id[:8]}` says more"
        )

    def _newest(self, name: str) -> str:
        return self._time_names[self.by_name[name][-1].set_id]

    def _by_prefix(self, text: str) -> BackupSet:
        wanted = text.lower()
        if len(wanted) < SHORTEST_PREFIX or not set(wanted) <= set("0123456789abcdef-"):
            raise self._missing(text)
        found = [each for set_id, each in self._by_id.items() if set_id.startswith(wanted)]
        if not found:
            raise self._missing(text)
        if len(found) > 1:
            raise NoSuchThing(f"{len(found)} sets begin with {text!r}: give more of the id")
        return found[0]


def _time_names(sets: list[BackupSet]) -> dict[SetId, str]:
    """Name the sets by their second; of several in one second of one job the later ones are counted.

    Sets in whatever state take part, so that a name never moves to another set.
    """
    taken: dict[tuple[str, str], int] = {}
    names = {}
    for each in sets:
        second = utc_name(each.started_at_ns)
        count = taken[each.name, second] = taken.get((each.name, second), 0) + 1
        names[each.set_id] = second if count == 1 else f"{second}-{count}"
    return names


def utc_name(at_ns: int) -> str:
    """Return a time as folders are named by it: 2026-11-23T020000Z."""
    return datetime.fromtimestamp(at_ns // _NS_PER_S, UTC).strftime("%Y-%m-%dT%H%M%SZ")


def iso_time(at_ns: int) -> str | None:
    """Return a time in UTC to the microsecond; None for 0, which means never."""
    if not at_ns:
        return None
    moment = datetime.fromtimestamp(at_ns // _NS_PER_S, UTC).replace(microsecond=at_ns % _NS_PER_S // 1000)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def folder_name(name: str) -> str:
    """Return a name that a folder can have: jobs are named by people, tapes by barcode printers."""
    if name in ("", ".", ".."):
        return "%" + name
    return name.replace("/", "%2F").replace("\0", "%00")
