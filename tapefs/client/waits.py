"""Calls that wait until something has come to its end: they ask again, less and less often. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from catalog.ids import JobNumber
from tapefs.client.calling import Ask, Pause, Steps, call
from tapefs.client.views import JobView, VerifyView
from tapefs.errors import Unreachable

if TYPE_CHECKING:
    from tapefs.client.tapes import TapeTaskView

T = TypeVar("T")

#: In the beginning often: an incremental run may be over in half a second.
FIRST_S, LONGEST_S, GROWTH = 0.05, 2.0, 1.2
#: So long in all a sidecar may be away while something is waited for: it may be restarted.
AWAY_S = 60.0


def until(ask: Ask[T], is_over: Callable[[T], bool], on_progress: Callable[[T], object] | None) -> Steps[T]:
    """Ask until it is over; a sidecar that goes away meanwhile is waited for."""
    pause_s, away_s = FIRST_S, 0.0
    while True:
        try:
            view: T = yield ask
        except Unreachable:
            if away_s >= AWAY_S:
                raise
            away_s += LONGEST_S
            yield Pause(LONGEST_S)
            continue
        away_s = 0.0
        if on_progress is not None:
            on_progress(view)
        if is_over(view):
            return view
        yield Pause(pause_s)
        pause_s = min(GROWTH * pause_s, LONGEST_S)


class WaitCalls:
    """The calls. Those that take `on_progress` call it with every answer."""

    @call
    @staticmethod
    def wait_job(number: JobNumber, on_progress: Callable[[JobView], object] | None = None) -> Steps[JobView]:
        """Wait until the newest run of a job has ended, good or bad. Raises NoSuchThing."""
        return until(Ask("GET", f"/api/v1/jobs/{number}", None, JobView), lambda job: job.is_finished, on_progress)

    @call
    @staticmethod
    def wait_task(number: int, on_progress: Callable[[TapeTaskView], object] | None = None) -> Steps[TapeTaskView]:
        """Wait until something that is done with a tape has ended. Raises NoSuchThing."""
        from tapefs.client.tapes import TapeTaskView

        ask = Ask("GET", f"/api/v1/tape-tasks/{number}", None, TapeTaskView)
        return until(ask, lambda task: not task.is_open, on_progress)

    @call
    @staticmethod
    def wait_verification(number: int, on_progress: Callable[[VerifyView], object] | None = None) -> Steps[VerifyView]:
        """Wait until a verification has ended. Raises NoSuchThing."""
        ask = Ask("GET", f"/api/v1/verify/{number}", None, VerifyView)
        return until(ask, lambda view: view.state != "running", on_progress)
