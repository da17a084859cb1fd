"""TAF's tape calls that change something. What needs the tape in a drive answers 202 with a task to ask for.

Only a tape on which nothing lives is written over or erased, and only if the caller has said what is on it: TAF's calls
name the tape, which is enough where that is what its label says; else `identity` says it. A tape that another program
has written, or that nobody knows, needs `force` besides. Both are looked at again when the tape is in the drive.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import trio
from starlette.requests import Request
from starlette.responses import Response

from catalog.errors import Conflict
from catalog.records import Volume, VolumeState
from drivers.interface import ElementKind
from sidecar.http.answers import json_answer
from sidecar.http.callers import Role
from sidecar.http.calls import Call, Query
from sidecar.http.requests import Invalid, body_of, text_of
from sidecar.service import Service
from sidecar.taf.tape_facts import TapeKnowledge
from sidecar.taf.tape_models import (
    Begun,
    Created,
    CreateTapeRequest,
    FormatRequest,
    Updated,
    UpdateTapeRequest,
    WriteTapeLabelRequest,
)
from sidecar.tapes.orders import Command, PutBack
from sidecar.tapes.tasks import TapeTask
from tapefs.errors import NoTape, NotNow, UsageError
from tapefs.mover.messages import Identify, Tend
from tapefs.retention.living import require_nothing_live
from tapefs.tape.forgetting import forget_tape
from tapefs.tape.names import check_name
from tapefs.tape.tending import Task

_IDENTITY = Query("identity", "what is on it now, where that is not what `tape_id` says")
_FORCE = Query("force", "what is on it is none of ours, and may go all the same", bool)
_LONG = Query("long", "write over every metre, which takes hours", bool)
_NEEDED = Query("tape_id", "label or barcode", is_required=True)


class TapeWorkCalls:
    """What is done with tapes."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._knows = TapeKnowledge(service)

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        base, admin = "/api/tape", Role.ADMIN
        post = partial(Call, methods=["POST"], status=202)
        formats = partial(post, endpoint=self.format, needs=admin, body=FormatRequest, answer=Begun)
        erases = partial(
            post, endpoint=self.erase, needs=admin, answer=Begun, query=(_NEEDED, _IDENTITY, _FORCE, _LONG)
        )
        which = Query("tape_id", "label or barcode; else the tape in the only drive that has one")
        return [
            post(f"{base}/create", self.create, needs=admin, body=CreateTapeRequest, answer=Created, also=(200,)),
            Call(
                f"{base}/update/{{tape_id}}", self.update, methods=["PUT"], needs=admin,
                body=UpdateTapeRequest, answer=Updated, also=(202,),
            ),
            Call(
                f"{base}/delete/{{tape_id}}", self.delete, methods=["DELETE"], needs=admin, answer=Begun,
                query=(_IDENTITY,),
            ),
            post(f"{base}/write-label", self.write_label, needs=admin, body=WriteTapeLabelRequest, answer=Begun),
            formats(f"{base}/format"),
            formats(f"{base}/operations/format"),
            erases(f"{base}/erase"),
            erases(f"{base}/operations/erase"),
            post(f"{base}/operations/load", self.load, needs=Role.OPERATOR, answer=Begun, query=(_NEEDED,)),
            post(
                f"{base}/operations/unload", self.unload, needs=Role.OPERATOR, answer=Begun, query=(which,), also=(200,)
            ),
        ]  # fmt: skip

    async def create(self, request: Request) -> Response:
        """Have a blank tape labelled under a new name; 202. A tape that is known already stays what it is."""
        body = await body_of(request, CreateTapeRequest)
        check_label(body.label, "label")
        known = await trio.to_thread.run_sync(self._known, body.tape_id)
        if known is not None and (not body.format_tape or not _is_blank(known)):
            message = f"Tape {known.label} is known already; what is on it stays"
            return json_answer(Created(True, message, known.label, known.label, False, True))
        if not body.format_tape:
            raise NotNow(f"there is no tape {body.tape_id} here: put it in, or have a blank one labelled (format_tape)")
        other = await trio.to_thread.run_sync(self._known, body.label)
        if other is not None and other != known:
            raise Conflict(f"there is a tape {body.label} already")
        await self._service.library.refresh()
        volume: Volume = known if known is not None else await trio.to_thread.run_sync(self._blank_tape)
        task = await self._begin(volume, partial(_tend, task=Task.LABEL, name=body.label))
        message = f"Tape {volume.code} is being labelled {body.label}; its retention is that of its pool {volume.pool}"
        made = Created(True, message, body.label, body.label, True, known is not None, task.number, poll_of(task))
        return json_answer(made, 202)

    def _known(self, name: str) -> Volume | None:
        return next((each for each in self._service.ledger.volumes() if name in (each.label, each.code)), None)

    def _blank_tape(self) -> Volume:
        """Return a blank tape that is here: one in a drive that does nothing with it, or else one in a slot."""
        library = self._service.library
        blank = [each for each in self._service.ledger.volumes() if _is_blank(each) and not each.location]
        places = {each.code: library.place_of(each.code) for each in blank}
        busy = {task.volume_id for task in self._service.tape_tasks.tasks() if task.is_open}
        for kind in (ElementKind.DRIVE, ElementKind.SLOT):
            for volume in blank:
                place = places[volume.code]
                is_free = volume.volume_id not in busy and not library.is_held(volume.volume_id)
                if place is not None and place.kind is kind and is_free:
                    return volume
        raise NoTape("there is no blank tape in the library: put one in")

    async def update(self, request: Request) -> Response:
        """Note where a tape lies, give it another name, or have it formatted; the last two answer 202."""
        body = await body_of(request, UpdateTapeRequest)
        service = self._service
        volume = self._knows.called(str(request.path_params["tape_id"]))
        name = volume.label if body.label is None else check_label(body.label, "label")
        if body.location is not None:
            work = partial(service.ledger.move_volume, volume.volume_id, body.location, service.jobs.now_ns())
            await trio.to_thread.run_sync(work)
            service.tape_tasks.look_again()
        if not body.format_tape and name == volume.label:
            return json_answer(Updated(True, f"Tape {volume.label} was changed{_ignored(body)}", volume.label, False))
        identity = body.identity or volume.label
        task = await self._begin(volume, partial(_write_label, name=name, identity=identity))
        message = f"Tape {volume.label} is being labelled {name}"
        return json_answer(Updated(True, message, name, True, task.number, poll_of(task)), 202)

    async def delete(self, request: Request) -> Response:
        """Forget a tape that is gone for ever; while something lives on it `identity` has to say its name."""
        service = self._service
        volume = self._knows.called(str(request.path_params["tape_id"]))
        await service.library.refresh()
        if service.library.place_of(volume.code) is not None or service.library.is_held(volume.volume_id):
            raise NotNow(f"tape {volume.label} is in the library: take it out of it first, if it is gone for ever")
        identity = text_of(request, "identity") or ""
        work = partial(forget_tape, service.ledger, volume, identity, service.jobs.now_ns())
        try:
            lost = await trio.to_thread.run_sync(work)
        except NotNow as error:
            raise NotNow(
                f"{str(error).partition('; if it is gone')[0]}; send ?identity={volume.label} if so"
            ) from error
        gone = f"tape {volume.label} is gone for ever"
        service.recalls.tape_failed(volume.volume_id, gone)
        service.verifications.tape_failed(volume.volume_id, gone)
        message = f"Tape {volume.label} is forgotten; {len(lost)} sets have lost something"
        return json_answer(Begun(success=True, message=message, tape_id=volume.label))

    async def write_label(self, request: Request) -> Response:
        """Have a tape labelled; 202. One that has a label already, or anything on it, needs `identity`."""
        body = await body_of(request, WriteTapeLabelRequest)
        volume, name = self._knows.called(body.tape_id), check_label(body.label, "label")
        task = await self._begin(volume, partial(_write_label, name=name, identity=body.identity))
        return _begun(task, f"Tape {volume.label} is being labelled {name}", name)

    async def format(self, request: Request) -> Response:
        """Have a tape labelled anew; 202. Without `tape_id` the one in the drive; `identity` if anything is on it."""
        body = await body_of(request, FormatRequest)
        if body.tape_id:
            volume = self._knows.called(body.tape_id)
        else:
            found = self._knows.loaded()
            if found is None:
                raise NoTape("no tape is in a drive: say which one is to be formatted by tape_id")
            volume = found[1]
        command = partial(_write_label, name=volume.label, identity=body.identity, is_forced=body.force)
        task = await self._begin(volume, command)
        return _begun(task, f"Tape {volume.label} is being formatted", volume.label)

    async def erase(self, request: Request) -> Response:
        """Have a tape erased; 202."""
        volume = self._knows.called(required(request, "tape_id"))
        identity = text_of(request, "identity") or volume.label
        is_forced, is_long = flag_of(request, "force"), flag_of(request, "long")
        command = partial(_tend, task=Task.ERASE, identity=identity, is_forced=is_forced, is_long=is_long)
        task = await self._begin(volume, command)
        return _begun(task, f"Tape {volume.label} is being erased", volume.label)

    async def load(self, request: Request) -> Response:
        """Have a tape put into a drive, and looked at; 202. It stays there until another is needed."""
        volume = self._knows.called(required(request, "tape_id"))
        task = await self._begin(volume, lambda each: Identify(id=0, volume_id=each.volume_id))
        return _begun(task, f"Tape {volume.label} is being put into a drive", volume.label)

    async def unload(self, request: Request) -> Response:
        """Have the tape in a drive brought back to its slot when the drive rests; 202, 200 when none is in a drive."""
        found = self._knows.loaded(text_of(request, "tape_id") or "")
        if found is None:
            return json_answer(Begun(success=True, message="no tape is in a drive"))
        drive, volume = found
        task = await self._begin(volume, lambda each: PutBack(volume_id=each.volume_id))
        return _begun(task, f"Tape {volume.label} is brought back to its slot when {drive.name} rests", volume.label)

    async def _begin(self, volume: Volume, command: Callable[[Volume], Command]) -> TapeTask:
        """Have it done; what would be refused when the tape is loaded is refused at once."""
        told, service = command(volume), self._service
        if isinstance(told, Tend):
            work = partial(require_nothing_live, service.ledger, volume.volume_id, volume.label, service.jobs.now_ns())
            await trio.to_thread.run_sync(work)
        return service.tape_tasks.add(volume, told)


def check_label(name: str, field: str) -> str:
    """Return a name that a tape can be given. Raises Invalid."""
    try:
        return check_name(name)
    except UsageError as error:
        raise Invalid("value_error", ["body", field], str(error), name) from error


def required(request: Request, name: str) -> str:
    """Return a text of the query. Raises Invalid when it is missing."""
    text = text_of(request, name)
    if text is None:
        raise Invalid("missing", ["query", name], "Field required")
    return text


def flag_of(request: Request, name: str) -> bool:
    """Return a truth of the query, false when it is missing. Raises Invalid."""
    text = (text_of(request, name) or "false").lower()
    if text in ("true", "1", "yes", "on"):
        return True
    if text in ("false", "0", "no", "off"):
        return False
    raise Invalid("bool_parsing", ["query", name], "Input should be true or false", text)


def poll_of(task: TapeTask) -> str:
    """Return where to ask what has become of it."""
    return f"/api/v1/tape-tasks/{task.number}"


def _begun(task: TapeTask, message: str, tape_id: str) -> Response:
    begun = Begun(
        success=True, message=f"{message}: see GET {poll_of(task)}", tape_id=tape_id, task=task.number,
        poll=poll_of(task),
    )  # fmt: skip
    return json_answer(begun, 202)


def _is_blank(volume: Volume) -> bool:
    return volume.state is VolumeState.BLANK and not volume.foreign


def _tend(
    volume: Volume,
    *,
    task: Task,
    name: str = "",
    identity: str = "",
    is_forced: bool = False,
    is_long: bool = False,
) -> Tend:
    return Tend(
        id=0,
        volume_id=volume.volume_id,
        task=task.value,
        name=name,
        identity=identity,
        is_forced=is_forced,
        is_long=is_long,
    )


def _write_label(volume: Volume, *, name: str, identity: str, is_forced: bool = False) -> Tend:
    """Return what labels a tape, over what is on it only if somebody says what that is. Raises NotNow."""
    if _is_blank(volume) and not identity and not is_forced:
        return _tend(volume, task=Task.LABEL, name=name)
    if not identity and not is_forced:
        raise NotNow(
            f"tape {volume.label} has a label and may hold something: repeat its name as `identity` if that may go"
        )
    if _is_blank(volume) and identity in ("", volume.label) and not is_forced:
        return _tend(volume, task=Task.LABEL, name=name)
    return _tend(volume, task=Task.RELABEL, name=name, identity=identity, is_forced=is_forced)


def _ignored(body: UpdateTapeRequest) -> str:
    """Say what of a body has no meaning here."""
    named = {
        "serial_number": body.serial_number,
        "media_type": body.media_type,
        "generation": body.generation,
        "capacity_gb": body.capacity_gb,
        "notes": body.notes,
    }
    given = [name for name, value in named.items() if value is not None]
    return f"; {', '.join(given)}: what the drive tells counts" if given else ""
