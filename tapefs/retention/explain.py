"""All that is to be said of a tape or a set, as sentences: what keeps it, until when, what comes next.

Blocking; reads the ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import tzinfo

from catalog.ledger import Ledger
from catalog.records import AS_POOL, BackupSet, CopyState, SetState, Volume, VolumeState
from tapefs.retention.allocation import Choice, Source
from tapefs.retention.calendar import day_of
from tapefs.retention.candidates import reuse_of, tapes_with_sets
from tapefs.retention.expire import verdicts_of
from tapefs.retention.holds import begun_at_ns, holds_on
from tapefs.retention.places import placement
from tapefs.retention.policy import ARCHIVE, MIRROR, Verdict
from tapefs.retention.pools import SCRATCH, Pools
from tapefs.sizes import size

#: Sets that are told one by one.
MOST_SETS = 50


def called(each: BackupSet) -> str:
    """Name a set for people."""
    return f"{each.set_id[:8]} ({each.name}, {each.type}, {day_of(each.started_at_ns)})"


def explain_set(ledger: Ledger, each: BackupSet, now_ns: int, zone: tzinfo | None = None) -> list[str]:
    """Say what becomes of a set and why, what builds on it, and where it lies."""
    said = [f"Set {called(each)} is {each.state.value}."]
    if each.state is SetState.EXPIRED:
        when = f" on {day_of(each.expired_at_ns, zone)}" if each.expired_at_ns else ""
        said.append(f"It was let go of{when}; what is still on tape is not shown any more.")
    else:
        (verdict,) = (found for found in verdicts_of(ledger, now_ns) if found.backup_set.set_id == each.set_id)
        said += [_fate(verdict), *_rules(ledger, each, zone), *_chain(ledger, each)]
    return [*said, *_where(ledger, each)]


def _fate(verdict: Verdict) -> str:
    if verdict.goes:
        return f"It may go: {verdict.reason}. `tapefs expire --apply` lets it go."
    return f"It stays: {verdict.reason}."


def _rules(ledger: Ledger, each: BackupSet, zone: tzinfo | None) -> list[str]:
    if each.type == ARCHIVE:
        return []
    said = []
    if each.type == MIRROR:
        said.append("A verified mirror of its job takes its place, whatever its retention.")
    elif each.retention_days == AS_POOL:
        said.append("Its job leaves to its pools how long it is kept.")
    elif each.retention_days:
        said.append(f"Its job asked for {each.retention_days} days.")
    else:
        said.append("Its job asked for no end.")
    for hold in holds_on(ledger, [each], zone)[each.set_id]:
        until = "for ever" if hold.until_ns is None else f"until {day_of(hold.until_ns, zone)}"
        said.append(f"By the rule of {hold.by} it is kept {until}.")
    return said


def _chain(ledger: Ledger, each: BackupSet) -> list[str]:
    said = []
    if each.parent_id is not None:
        said.append(f"It builds on set {called(ledger.backup_set(each.parent_id))}, which stays as long as it does.")
    for other in ledger.backup_sets():
        if other.parent_id == each.set_id and other.state is not SetState.EXPIRED:
            said.append(f"Set {called(other)} builds on it: it cannot go before that.")
    return said


def _where(ledger: Ledger, each: BackupSet) -> list[str]:
    volumes = {volume.label: volume for volume in ledger.volumes()}
    on = [volumes[label] for label in each.tapes if label in volumes]
    if not on:
        return ["It lies on no tape that is known."]
    said = [f"It lies on {', '.join(_placed(volume) for volume in on)}."]
    copies = [(segment, ledger.copies(segment.segment_id)) for segment in ledger.segments(each.set_id)]
    damaged = sum(copy.state is CopyState.DAMAGED for _, found in copies for copy in found)
    if damaged:
        said.append(f"{damaged} copies of its segments are damaged: see `tapefs report {each.set_id[:8]}`.")
    for name in each.copy_pools:
        here = {volume.volume_id for volume in on if volume.pool == name}
        lacking = sum(not any(copy.volume_id in here for copy in found) for _, found in copies)
        if lacking:
            said.append(f"{lacking} of its {len(copies)} segments are still to be copied to pool {name}.")
    return said


def _placed(volume: Volume) -> str:
    where = f", in {volume.location}" if volume.location else ""
    return f"{volume.label} (pool {volume.pool}{where})"


def explain_tape(
    ledger: Ledger, pools: Pools, volume: Volume, place: str, choice: Choice, now_ns: int, zone: tzinfo | None = None
) -> list[str]:
    """Say what a tape holds and why, whether it is written or overwritten next, and where it belongs.

    `place` is where the robot has it, for people; empty when it is not in the library. `choice` is that of its pool.
    """
    sets = dict((each.volume_id, found) for each, found in tapes_with_sets(ledger))[volume.volume_id]
    said = [_state(volume, zone), _lies(volume, place), *encryption_of(volume)]
    if volume.state is VolumeState.BLANK:
        return [*said, *_writing(volume, choice)]
    verdicts = {each.backup_set.set_id: each for each in verdicts_of(ledger, now_ns)}
    live = [each for each in sets if each.state is not SetState.EXPIRED]
    living = "one set that lives" if len(live) == 1 else f"{len(live)} sets that live"
    said.append(f"It holds {living}, and what is left of {len(sets) - len(live)} that have expired.")
    said += [f"Set {called(each)}: {_short_fate(verdicts[each.set_id])}." for each in live[:MOST_SETS]]
    if len(live) > MOST_SETS:
        said.append(f"… and {len(live) - MOST_SETS} sets more.")
    reuse = reuse_of(ledger, pools, volume, sets, now_ns, zone)
    said.append(f"{'It may be overwritten' if reuse.may else 'It is not overwritten'}: {reuse.reason}.")
    begun_ns = begun_at_ns(ledger, volume)
    belongs = placement(volume, pools.find(volume.pool), sets, begun_ns, now_ns, zone)
    if belongs.is_due:
        said.append(f"It should be in {belongs.should or 'the library'}: {belongs.reason}.")
    return [*said, *_writing(volume, choice)]


def _state(volume: Volume, zone: tzinfo | None) -> str:
    begun = f", begun on {day_of(volume.labelled_at_ns, zone)}" if volume.labelled_at_ns else ""
    why = f" ({volume.reason})" if volume.reason else ""
    used = f"{size(volume.used_bytes)} of {size(volume.capacity_bytes)} used"
    return f"Tape {volume.label} of pool {volume.pool} is {volume.state.value}{why}{begun}, {used}."


def encryption_of(volume: Volume) -> list[str]:
    """Say who encrypts what is written to a tape, and for which key; nothing for a plain tape."""
    if not volume.key_fingerprint:
        return []
    who = "The drive encrypts it" if volume.by_drive else "tapefs encrypts what is written to it"
    return [f"{who}, for key {volume.key_fingerprint}."]


def _lies(volume: Volume, place: str) -> str:
    if volume.location:
        seen = f", although the library has it in {place}" if place else ""
        return f"It lies in {volume.location}{seen}."
    return f"It is in {place} of the library." if place else "It is not in the library, and nothing says where it lies."


def _short_fate(verdict: Verdict) -> str:
    return f"may go, {verdict.reason}" if verdict.goes else f"stays, {verdict.reason}"


def _writing(volume: Volume, choice: Choice) -> list[str]:
    return [] if volume.pool == SCRATCH else next_tape(volume.pool, choice, volume)


def next_tape(pool: str, choice: Choice, about: Volume | None = None) -> list[str]:
    """Say which tape a pool writes next, and why not one of the others, or all of them."""
    said = []
    taken = choice.taken
    if taken is None:
        said.append(f"Pool {pool} has no tape that could be written now.")
    else:
        ends = " by relabelling it" if taken.source is Source.REUSED else ""
        said.append(f"Pool {pool} writes {taken.volume.label} next{ends}: {taken.reason}.")
    others: Sequence[str] = [
        f"Not {answer.volume.label}: {answer.reason if answer.source is None else 'another one comes first'}."
        for answer in choice.answers
        if answer is not taken and about in (None, answer.volume)
    ]
    return [*said, *others]
