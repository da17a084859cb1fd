"""What becomes of a task with a tape that was open when the sidecar ended, and what is known of the tape then.

Blocking; at start, before any mover runs.

| task                               | waited          | had begun                                              |
|------------------------------------|-----------------|--------------------------------------------------------|
| identify, reclaim                  | is done         | is begun anew: what is done already is not done twice  |
| label, relabel, erase, import      | is done         | `interrupted`, with what the catalog knows of the tape |
| of a schedule                      | `interrupted`   | `interrupted`: the schedule begins it anew             |
| its tape is another by now         | `failed`        | as above                                               |

A tape that was being labelled or erased is never taken for what it was: before a drive writes over anything, the
ledger has put a BLANK record in its place, which says what may be written over (`tapefs.tape.tending`).
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from catalog.errors import NotFound
from catalog.ids import VolumeId
from catalog.ledger import Ledger
from catalog.records import IntentKind, Volume, VolumeState
from catalog.task_records import TaskRecord, TaskState
from sidecar.tapes.orders import REPEATABLE, Command
from sidecar.tapes.task_log import OWN_KEEPER
from tapefs.mover.messages import ImportTaf

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a task has ended."""

    state: TaskState
    kind: str = ""
    #: For people; with what they do next.
    sentence: str = ""


def ending_of(ledger: Ledger, record: TaskRecord, command: Command, code: str, keeper: str) -> Ending | None:
    """Return how an open task has ended with the last sidecar; None: it is gone on with."""
    has_begun = record.state is TaskState.RUNNING
    if keeper == OWN_KEEPER:
        return Ending(TaskState.INTERRUPTED, "interrupted", "the sidecar ended; whoever asked for it asks anew")
    if has_begun and not isinstance(command, REPEATABLE):
        log.warning("a task with a tape was interrupted", task=record.number, kind=record.kind, tape=record.subject)
        sentence = f"the sidecar ended during it. {_known_of(ledger, record, command, code)}"
        return Ending(TaskState.INTERRUPTED, "interrupted", sentence)
    if not _is_there(ledger, command.volume_id):
        return Ending(TaskState.FAILED, "no_volume", f"tape {record.subject} was given up or forgotten meanwhile")
    return None


def _is_there(ledger: Ledger, volume_id: VolumeId) -> bool:
    try:
        ledger.volume(volume_id)
    except NotFound:
        return False
    return True


def _known_of(ledger: Ledger, record: TaskRecord, command: Command, code: str) -> str:
    """Say how the tape is, as far as the catalog knows, and what to do."""
    again = f"`tapefs tape {record.kind} {record.subject}`"
    if isinstance(command, ImportTaf):
        return "What was taken in by then stays; the same command goes on"
    try:
        volume = ledger.volume_by_code(code)
    except NotFound:
        return f"The catalog does not know tape {record.subject} any more"
    if volume.volume_id == command.volume_id:
        return _not_given_up(ledger, volume, again)
    if volume.state is not VolumeState.BLANK:
        return f"What was on the tape was given up; it is labelled {volume.label} and {volume.state.value} now"
    if record.kind == "erase":
        return (
            f"What was on tape {volume.label} was given up, and part of it may still be there: it counts as blank, and "
            f"its next label is written over that; {again} erases it wholly"
        )
    return (
        f"What was on the tape was given up; it is {volume.label} now, counts as blank, and may be half labelled: its "
        f"next use labels it, or `tapefs tape label {volume.label}`"
    )


def _not_given_up(ledger: Ledger, volume: Volume, again: str) -> str:
    if any(intent.kind is IntentKind.LABEL for intent in ledger.intents(volume.volume_id)):
        return f"The label of tape {volume.label} may be half written: {again} finishes it, and so does its next use"
    return f"Nothing on tape {volume.label} was given up by then: it is {volume.state.value} as before; {again} does it"
