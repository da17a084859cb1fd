"""Notices as they are shown over HTTP. Pure functions."""

from __future__ import annotations

from datetime import datetime

import msgspec

from catalog.notice_records import Facts, Notice
from sidecar.http.answers import moment
from tapefs.notice_kinds import KINDS


class NoticeAnswer(msgspec.Struct, frozen=True):
    """A notice."""

    number: int
    at: datetime | None
    kind: str
    gravity: str
    subject: str
    text: str
    facts: Facts


def notice_answer(notice: Notice) -> NoticeAnswer:
    """Return a notice as it is shown."""
    kind = KINDS.get(notice.kind)
    gravity = kind.gravity.name.lower() if kind else "news"
    return NoticeAnswer(
        notice.number, moment(notice.at_ns), notice.kind, gravity, notice.subject, notice.text, notice.facts
    )
