"""Operations on notices and their delivery: functions of a transaction (see `catalog.ledger`)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import msgspec

from catalog.ledger_store.tables import (
    CHANNELS,
    CONDITIONS,
    COUNTERS,
    DELIVERIES,
    FOLLOWED_COUNTER,
    NOTICE_COUNTER,
    NOTICES,
    delivery_key,
    event_key,
    parts,
    text_key,
)
from catalog.ledger_store.transaction import Reader, Writer, plain_text
from catalog.notice_records import KEPT_GIVEN_UP, KEPT_NOTICES, ChannelRecord, Condition, Delivery, NewNotice, Notice

_MAX_NUMBER = 2**64 - 1


def post(
    tx: Writer, new: Sequence[NewNotice], followed: tuple[int | None, int] | None, ended: Sequence[str]
) -> list[Notice]:
    """Number and keep notices, queue their deliveries, note what conditions began and ended."""
    if followed is not None:
        known, reached = followed
        if tx.find(COUNTERS, FOLLOWED_COUNTER) != known:
            return []
        if reached != known:
            tx.put(COUNTERS, FOLLOWED_COUNTER, reached)
    for name in ended:
        tx.delete(CONDITIONS, text_key(name))
    return [_keep(tx, each) for each in new if _is_news(tx, each)]


def _is_news(tx: Writer, new: NewNotice) -> bool:
    """Note the condition that it is about, if any; is that as it was before?"""
    if new.ends:
        there = tx.find(CONDITIONS, text_key(new.ends)) is not None
        tx.delete(CONDITIONS, text_key(new.ends))
        return there
    if new.raises:
        there = tx.find(CONDITIONS, text_key(new.raises)) is not None
        if not there:
            tx.insert(CONDITIONS, text_key(new.raises), Condition(name=plain_text(new.raises), since_ns=new.at_ns))
        return not there
    return True


def _keep(tx: Writer, new: NewNotice) -> Notice:
    number = tx.next_number(NOTICE_COUNTER)
    facts = {
        plain_text(name): plain_text(value) if isinstance(value, str) else value for name, value in new.facts.items()
    }
    notice = Notice(
        number=number,
        at_ns=new.at_ns,
        kind=new.kind,
        subject=plain_text(new.subject),
        text=plain_text(new.text),
        facts=facts,
    )
    tx.insert(NOTICES, event_key(number), notice)
    if number > KEPT_NOTICES:
        tx.delete(NOTICES, event_key(number - KEPT_NOTICES))
    for channel in new.channels:
        tx.insert(DELIVERIES, delivery_key(channel, number), Delivery(channel=channel, notice=notice))
    return notice


def since(tx: Reader, number: int, limit: int) -> list[Notice]:
    """Return at most `limit` notices with a higher number, oldest first."""
    if number >= _MAX_NUMBER:
        return []
    first = event_key(max(number, 0) + 1)
    return [notice for _, notice in islice(tx.scan(NOTICES, first=first), max(limit, 0))]


def newest(tx: Reader) -> int:
    """Return the number of the newest notice; 0: there was none."""
    return tx.find(COUNTERS, NOTICE_COUNTER) or 0


def followed(tx: Reader) -> int | None:
    """Return up to which event notices were made; None: of none yet."""
    return tx.find(COUNTERS, FOLLOWED_COUNTER)


def conditions(tx: Reader) -> list[Condition]:
    """Return the conditions that have begun and not ended, by name."""
    return sorted((each for _, each in tx.scan(CONDITIONS)), key=lambda each: each.name)


def deliveries(tx: Reader, channel: str) -> list[Delivery]:
    """Return what is to be delivered, or was given up, by one channel or by all (empty); oldest first in each."""
    return [each for _, each in tx.scan(DELIVERIES, parts(channel) if channel else b"")]


def channels(tx: Reader) -> list[ChannelRecord]:
    """Return how the channels have done, by name."""
    return sorted((each for _, each in tx.scan(CHANNELS)), key=lambda each: each.name)


def note_delivery(tx: Writer, known: Delivery, now_ns: int, error: str, next_at_ns: int | None) -> None:
    """Note what became of an attempt; harmless when it was noted."""
    key = delivery_key(known.channel, known.notice.number)
    if tx.find(DELIVERIES, key) != known or known.is_given_up:
        return
    record = tx.find(CHANNELS, text_key(known.channel)) or ChannelRecord(name=known.channel)
    if not error:
        tx.delete(DELIVERIES, key)
        record = msgspec.structs.replace(record, delivered=record.delivered + 1, delivered_at_ns=now_ns)
    else:
        error, is_over = plain_text(error), next_at_ns is None
        after = msgspec.structs.replace(
            known, attempts=known.attempts + 1, next_at_ns=next_at_ns or 0, error=error, is_given_up=is_over
        )
        tx.put(DELIVERIES, key, after)
        record = msgspec.structs.replace(
            record,
            failed=record.failed + 1,
            failed_at_ns=now_ns,
            error=error,
            given_up=record.given_up + is_over,
        )
    tx.put(CHANNELS, text_key(known.channel), record)
    if error and next_at_ns is None:
        _forget_oldest(tx, known.channel)


def _forget_oldest(tx: Writer, channel: str) -> None:
    given_up = [key for key, each in tx.scan(DELIVERIES, parts(channel)) if each.is_given_up]
    for key in given_up[:-KEPT_GIVEN_UP]:
        tx.delete(DELIVERIES, key)
