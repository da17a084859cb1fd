"""What a schedule does, in words. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from catalog.ids import JobNumber
from catalog.schedule_records import (
    Action,
    BackUp,
    CheckHealth,
    CheckRetention,
    Clean,
    CopyCatalog,
    Expire,
    Reclaim,
    Restore,
    Verify,
)
from tapefs.sizes import counted


def describe_action(action: Action, job_name: Callable[[JobNumber], str | None]) -> str:
    """Return the action in words; `job_name` tells what a job is called, None of one that is gone."""
    match action:
        case BackUp():
            name = job_name(action.job)
            what = f"job {action.job}, which is gone" if name is None else f"{name} (job {action.job})"
            return f"backs up {what}{f', {action.type}' if action.type else ''}"
        case Restore():
            of_it = f" of it {' '.join(action.paths)}" if action.paths else ""
            over = ", over what is there" if action.overwrite else ""
            return f"restores {action.set_id[:8] or action.name}{of_it} to {action.target}{over}"
        case Verify():
            return f"reads back {_read_back(action)}"
        case Expire():
            return f"lets go of what has outlived its retention{', failed sets at once' if action.failed else ''}"
        case CheckRetention():
            return "tells which sets may go"
        case Clean():
            return f"cleans {' '.join(action.drives) or 'the drives that ask for it'}"
        case CheckHealth():
            return "checks catalog, drives and tapes"
        case CopyCatalog():
            return f"copies the catalog to {_copied_to(action)}"
        case Reclaim():
            return f"empties tapes of pool {action.pool} of which less than {action.below_percent:g} % lives"
    assert_never(action)


def _read_back(action: Verify) -> str:
    named = [*(set_id[:8] for set_id in action.sets), *action.tapes]
    some = f", {counted(action.sample, 'segment')} of each tape" if action.sample else ""
    lately = f", but not what was within {counted(action.unless_days, 'day')}" if action.unless_days else ""
    return f"{' '.join(named) or 'everything'}{some}{lately}"


def _copied_to(action: CopyCatalog) -> str:
    if action.folder:
        return f"{action.folder}, where {action.keep or 'all'} stay"
    return f"tape, kept {counted(action.keep, 'day') if action.keep else 'for ever'}"
