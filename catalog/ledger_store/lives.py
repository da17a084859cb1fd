"""Operations on the lives of cartridges: functions of a transaction (see `catalog.ledger`)."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from catalog.ledger_store.tables import LIVES, MOUNTINGS, mounting_key, parts, text_key
from catalog.ledger_store.transaction import Reader, Writer, plain_text
from catalog.life_records import KEPT_MISHAPS, KEPT_MOUNTINGS, AlertSeen, CartridgeLife, MediumFacts, Mounting


def life(tx: Reader, code: str) -> CartridgeLife:
    """Return the life of a cartridge; an empty one when nothing is known of it."""
    return tx.find(LIVES, text_key(code)) or CartridgeLife(code=code)


def lives(tx: Reader) -> list[CartridgeLife]:
    """Return all lives, by code."""
    return sorted((each for _, each in tx.scan(LIVES)), key=lambda each: each.code)


def mountings(tx: Reader, code: str) -> list[Mounting]:
    """Return the newest mountings of a cartridge, the newest first."""
    found = [each for _, each in tx.scan(MOUNTINGS, parts(code))]
    found.reverse()
    return found


def all_mountings(tx: Reader, since_ns: int) -> list[Mounting]:
    """Return what is kept of all mountings that began at `since_ns` or later, oldest first."""
    found = (each for _, each in tx.scan(MOUNTINGS) if each.loaded_at_ns >= since_ns)
    return sorted(found, key=lambda each: each.loaded_at_ns)


def note_mounting(tx: Writer, mounting: Mounting, medium: MediumFacts | None) -> None:
    """Record a mounting as it is by now, and what it adds to the life; the same again is harmless."""
    mounting = _plain(mounting)
    key = mounting_key(mounting.code, mounting.loaded_at_ns, mounting.mounting_id)
    before = tx.find(MOUNTINGS, key)
    was = life(tx, mounting.code)
    now = _with_medium(_grown(was, before, mounting), medium)
    if before == mounting and was == now:
        return
    tx.put(MOUNTINGS, key, mounting)
    tx.put(LIVES, text_key(mounting.code), now)
    _forget_oldest(tx, mounting.code)
    if before is None:
        tx.tell("cartridge.mounted", mounting.code, mounting.drive, mounting.loaded_at_ns)


def note_erased(tx: Writer, code: str, now_ns: int) -> None:
    """Note that a cartridge was erased."""
    was = life(tx, code)
    if was.erased_at_ns < now_ns:
        tx.put(LIVES, text_key(code), msgspec.structs.replace(was, erased_at_ns=now_ns))
        tx.tell("cartridge.erased", code, "", now_ns)


def note_used_up(tx: Writer, code: str, now_ns: int) -> None:
    """Note that a cleaning cartridge does not clean any more; the same again is harmless."""
    was = life(tx, code)
    if not was.is_used_up:
        tx.put(LIVES, text_key(code), msgspec.structs.replace(was, is_used_up=True))
        tx.tell("cartridge.used_up", code, "", now_ns)


def _plain(mounting: Mounting) -> Mounting:
    mishaps = tuple(
        msgspec.structs.replace(each, message=plain_text(each.message)) for each in mounting.mishaps[-KEPT_MISHAPS:]
    )
    identity = plain_text(mounting.drive_identity)
    return msgspec.structs.replace(mounting, mishaps=mishaps, drive_identity=identity)


def _grown(was: CartridgeLife, before: Mounting | None, now: Mounting) -> CartridgeLife:
    """Add to a life by what `now` has more than was noted of the same mounting before."""
    old = before or Mounting(mounting_id="", code=now.code, drive="", loaded_at_ns=now.loaded_at_ns)
    return msgspec.structs.replace(
        was,
        mountings=was.mountings + (before is None),
        first_at_ns=was.first_at_ns or now.loaded_at_ns,
        last_at_ns=max(was.last_at_ns, now.loaded_at_ns),
        written_bytes=was.written_bytes + now.written_bytes - old.written_bytes,
        read_bytes=was.read_bytes + now.read_bytes - old.read_bytes,
        write_failures=was.write_failures + now.write_failures - old.write_failures,
        read_failures=was.read_failures + now.read_failures - old.read_failures,
        alerts=_seen(was.alerts, set(now.alerts) - set(old.alerts), now.loaded_at_ns),
    )


def _seen(known: tuple[AlertSeen, ...], new: Iterable[int], at_ns: int) -> tuple[AlertSeen, ...]:
    by_number = {each.number: each for each in known}
    for number in new:
        before = by_number.get(number)
        count = before.mountings if before is not None else 0
        by_number[number] = AlertSeen(number=number, mountings=count + 1, last_at_ns=at_ns)
    return tuple(by_number[number] for number in sorted(by_number))


def _with_medium(was: CartridgeLife, medium: MediumFacts | None) -> CartridgeLife:
    if medium is None or (was.medium is not None and was.medium.asked_at_ns > medium.asked_at_ns):
        return was
    most = max(was.most_capacity_bytes, medium.capacity_bytes or 0)
    return msgspec.structs.replace(was, medium=medium, most_capacity_bytes=most)


def _forget_oldest(tx: Writer, code: str) -> None:
    keys = [key for key, _ in tx.scan(MOUNTINGS, parts(code))]
    for key in keys[:-KEPT_MOUNTINGS]:
        tx.delete(MOUNTINGS, key)
