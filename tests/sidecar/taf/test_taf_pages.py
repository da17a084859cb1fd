"""A filtered list of TAF's tasks reads no job behind its page."""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

from catalog.records import JobState
from sidecar.http.requests import Page
from sidecar.jobs.queue import Jobs
from sidecar.taf.backup import matching


class Numbers:
    """Jobs that are but numbers, newest first."""

    def __init__(self, count: int) -> None:
        self.count, self.read = count, 0

    def page(self, limit: int, offset: int, *, newest_first: bool, states: Collection[JobState]) -> list[int]:
        assert newest_first
        found = list(range(self.count, 0, -1))[offset : offset + limit]
        self.read += len(found)
        return found


def even(jobs: Numbers, page: Page) -> list[int]:
    found = matching(cast(Jobs, jobs), page, (), lambda view: cast(int, view) % 2 == 0)
    return cast(list[int], found)


def test_only_what_is_needed_is_read() -> None:
    jobs = Numbers(5000)
    assert even(jobs, Page(3, 10)) == [4980, 4978, 4976]
    assert jobs.read == 200
    assert even(jobs, Page(2, 150)) == [4700, 4698]
    assert jobs.read == 600


def test_the_end_of_all_jobs() -> None:
    assert even(Numbers(400), Page(9, 198)) == [4, 2]
    assert even(Numbers(7), Page(9, 0)) == [6, 4, 2]
    assert even(Numbers(0), Page(9, 0)) == []
