"""Segments of which no copy is good: an index, so that not every copy is read to learn that all is well.

Functions of a transaction. Whoever changes a copy notes its segment here in the same transaction. A ledger of an
earlier version has no such index until `build` has made it: readers look through all copies then. So do those who are
about to let something go: an earlier program that was given the ledger in between has noted nothing here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

from catalog.errors import Damaged, WrongVersion
from catalog.ids import SegmentId, SetId
from catalog.ledger_store.tables import (
    COPIES,
    COUNTERS,
    DAMAGED_SEGMENTS,
    DAMAGED_SEGMENTS_KEY,
    SEGMENTS,
    SEGMENTS_BY_SET,
    parts,
    text_key,
)
from catalog.ledger_store.transaction import Reader, Writer
from catalog.records import CopyState, Segment

#: What DAMAGED_SEGMENTS_KEY says of an index that is kept as it is here; any other number has it built anew.
_KIND = 1


def note(tx: Writer, segment_id: SegmentId) -> None:
    """Record whether a segment, whose copies have changed, has a good one."""
    key = text_key(segment_id)
    if any(copy.state is CopyState.GOOD for _, copy in tx.scan(COPIES, parts(segment_id))):
        tx.delete(DAMAGED_SEGMENTS, key)
        return
    segment = tx.find(SEGMENTS, key)
    if segment is not None:
        tx.put(DAMAGED_SEGMENTS, key, segment.set_id)


def note_all(tx: Writer, segment_ids: Iterable[SegmentId]) -> None:
    """Record the same of several."""
    for segment_id in segment_ids:
        note(tx, segment_id)


def build(tx: Writer) -> None:
    """Make the index of a ledger whose copies were stored without."""
    for key in list(tx.keys(DAMAGED_SEGMENTS)):
        tx.delete(DAMAGED_SEGMENTS, key)
    for segment in by_their_copies(tx):
        tx.put(DAMAGED_SEGMENTS, text_key(segment.segment_id), segment.set_id)
    state_built(tx)


def state_built(tx: Writer) -> None:
    """Record that the index is kept from now on."""
    tx.put(COUNTERS, DAMAGED_SEGMENTS_KEY, _KIND)


def is_stated(tx: Reader) -> bool:
    """Does the ledger say that the index is kept? Raises Damaged, WrongVersion."""
    return tx.find(COUNTERS, DAMAGED_SEGMENTS_KEY) == _KIND


def is_built(tx: Reader) -> bool:
    """Is the index kept? One that does not say so any more is made anew."""
    try:
        return is_stated(tx)
    except (Damaged, WrongVersion):
        return False


def their_sets(tx: Reader, *, by_copies: bool) -> frozenset[SetId]:
    """Return the sets of these segments; with `by_copies` as the copies themselves say. Raises Damaged."""
    if not by_copies and is_built(tx):
        # Of an index that cannot be read, `verify` tells; the copies say the same.
        with suppress(Damaged, WrongVersion):
            return frozenset(SetId(set_id) for _, set_id in tx.scan(DAMAGED_SEGMENTS))
    return frozenset(segment.set_id for segment in by_their_copies(tx))


def by_their_copies(tx: Reader) -> Iterator[Segment]:
    """Yield these segments; reads all copies."""
    good = {copy.segment_id for _, copy in tx.scan(COPIES) if copy.state is CopyState.GOOD}
    for _, segment_id in tx.scan(SEGMENTS_BY_SET):
        if segment_id not in good:
            yield tx.follow(SEGMENTS, text_key(segment_id), "segments_by_set")
