"""The ledger's records of what people and programs are told: notices, what is still to be delivered, and to whom.

A notice is for people: a sentence, with facts for programs. The ledger's own events (`catalog.records.Event`) are hints
about records; notices are made of them, and of what only a running sidecar sees. Frozen and typed.
"""

from __future__ import annotations

import msgspec

from catalog.records import Record

#: So many notices are kept, the newest.
KEPT_NOTICES = 10_000
#: So many deliveries that were given up are kept for each channel.
KEPT_GIVEN_UP = 100

#: What a notice says for programs, by name.
Facts = dict[str, str | int | float | bool | None]


class NewNotice(Record, frozen=True, kw_only=True):
    """A notice that has no number yet."""

    at_ns: int
    #: As the table of kinds has them: `backup.failed`, `tape.wanted` …
    kind: str
    #: What it is about: number of a job, label of a tape, name of a drive; empty for the whole.
    subject: str
    #: For people.
    text: str
    facts: Facts = msgspec.field(default_factory=dict)
    #: Names of the channels that it is to be delivered by.
    channels: tuple[str, ...] = ()
    #: A condition that it says has begun, or has ended; it is posted only if that is news. Empty: neither.
    raises: str = ""
    ends: str = ""


class Notice(Record, frozen=True, kw_only=True):
    """Something that people or programs are told; the fields are NewNotice's."""

    number: int
    at_ns: int
    kind: str
    subject: str
    text: str
    facts: Facts = msgspec.field(default_factory=dict)


class Delivery(Record, frozen=True, kw_only=True):
    """A notice that is still to be delivered by a channel, or could not be."""

    channel: str
    notice: Notice
    #: How often that failed.
    attempts: int = 0
    #: When it is to be tried next; 0: at once.
    next_at_ns: int = 0
    #: Why it failed the last time.
    error: str = ""
    is_given_up: bool = False


class ChannelRecord(Record, frozen=True, kw_only=True):
    """How a channel has done so far."""

    name: str
    delivered: int = 0
    delivered_at_ns: int = 0
    failed: int = 0
    failed_at_ns: int = 0
    given_up: int = 0
    #: Of the newest failure; stays when it works again.
    error: str = ""


class Condition(Record, frozen=True, kw_only=True):
    """Something that people were told has begun, and that has not ended."""

    name: str
    since_ns: int
