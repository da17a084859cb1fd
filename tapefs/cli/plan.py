"""`tapefs plan`: what the planner would do, for anybody who wants to judge it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, TypeVar

import click
import msgspec

from drivers.virtual.motion import motion_of
from tapefs.cli.output import Json
from tapefs.errors import UsageError
from tapefs.planner.linear import LinearModel, RequestsOverlap
from tapefs.planner.plan import plan
from tapefs.planner.records import Model, Plan, Request, assess
from tapefs.planner.serpentine import SerpentineModel

_MOST_BYTES = 64 * 1024**2
_MOST_REQUESTS = 100_000
#: What a block of LTO requests holds.
_BLOCK_BYTES = 256 * 1024
#: Whole numbers up to here are exact in the planner's arithmetic.
_LARGEST = 2.0**53

Number = Annotated[float, msgspec.Meta(ge=0, le=_LARGEST)]
Positive = Annotated[float, msgspec.Meta(gt=0, le=_LARGEST)]
Blocks = Annotated[int, msgspec.Meta(ge=0, le=2**53 // _BLOCK_BYTES)]
T = TypeVar("T")


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Unknown keys are mistakes."""


class _Block(_Record, frozen=True):
    """A place on a full LTO cartridge."""

    block: Blocks = 0


class _Lto(_Record, frozen=True, tag_field="kind", tag="lto"):
    """An LTO cartridge before its drive; unit of time: seconds."""

    generation: int
    head: _Block = _Block()


class _LtoWish(_Record, frozen=True):
    """What is wanted of it."""

    id: str | int
    block: Blocks
    blocks: Blocks
    weight: Positive = 1.0


class _Linear(_Record, frozen=True, tag_field="kind", tag="linear"):
    """A straight tape; unit of time: that of length."""

    length: Positive
    u_turn: Number = 0.0
    #: Where the head stands; at the right end when it is not said.
    head: Number | None = None


class _LinearWish(_Record, frozen=True):
    """What is wanted of it."""

    id: str | int
    start: Number
    length: Number
    weight: Positive = 1.0


class _Task(_Record, frozen=True):
    """What stdin says; the form of the requests depends on the model."""

    model: _Linear | _Lto
    requests: msgspec.Raw


@click.command("plan")
def plan_command() -> None:
    """Say in which order to read from tape.

    Reads what is wanted as JSON from stdin and prints one line of JSON: the order, and the times the model expects.
    Both are described in docs/planner.md.
    """
    click.echo(msgspec.json.encode(_answer(_input())))


def _input() -> bytes:
    text = sys.stdin.buffer.read(_MOST_BYTES + 1)
    if len(text) > _MOST_BYTES:
        raise UsageError(f"the request on stdin is larger than {_MOST_BYTES // 1024**2} MiB")
    return text


def _answer(text: bytes) -> Json:
    if not text.strip():
        raise UsageError("nothing came on stdin: `tapefs plan --help` has what is to be sent")
    task = _decode(text, _Task, "stdin")
    if isinstance(task.model, _Linear):
        return _linear(task.model, _decode(task.requests, list[_LinearWish], "requests"))
    return _lto(task.model, _decode(task.requests, list[_LtoWish], "requests"))


def _decode(text: bytes | msgspec.Raw, kind: type[T], where: str) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{where}: {error}") from error


def _linear(model: _Linear, wishes: Sequence[_LinearWish]) -> Json:
    _check_ids([wish.id for wish in wishes])
    head = model.length if model.head is None else model.head
    if head > model.length:
        raise UsageError(f"model: the head stands at {head:.17g}, the tape ends at {model.length:.17g}")
    for wish in wishes:
        if wish.start + wish.length > model.length:
            raise UsageError(f"request {wish.id!r} ends behind the end of the tape, {model.length:.17g}")
    requests = [Request(wish.start, wish.length, wish.weight) for wish in wishes]
    motion = LinearModel(model.u_turn)
    try:
        found = plan(requests, head, motion)
    except RequestsOverlap as error:
        pair = f"{wishes[error.left].id!r} and {wishes[error.right].id!r}"
        raise UsageError(f"requests {pair} overlap and are not equal: this model reads disjoint files") from error
    return _told(found, [wish.id for wish in wishes], requests, _sorted(requests, head, motion), "")


def _lto(model: _Lto, wishes: Sequence[_LtoWish]) -> Json:
    _check_ids([wish.id for wish in wishes])
    try:
        motion = SerpentineModel(motion_of(model.generation))
    except ValueError as error:
        raise UsageError(f"model: {error}") from error
    blocks = motion.motion.generation.capacity_bytes // _BLOCK_BYTES
    for what, end in [
        ("the head", model.head.block),
        *((f"request {wish.id!r}", wish.block + wish.blocks) for wish in wishes),
    ]:
        if end > blocks:
            raise UsageError(f"{what} is behind the last block, {blocks:,}, of LTO-{model.generation}")
    requests = [Request(wish.block * _BLOCK_BYTES, wish.blocks * _BLOCK_BYTES, wish.weight) for wish in wishes]
    head = model.head.block * _BLOCK_BYTES
    found = plan(requests, head, motion)
    return _told(found, [wish.id for wish in wishes], requests, _sorted(requests, head, motion), "_s")


def _check_ids(ids: Sequence[str | int]) -> None:
    if len(ids) > _MOST_REQUESTS:
        raise UsageError(f"these are {len(ids):,} requests: at most {_MOST_REQUESTS:,} are planned at once")
    twice = [each for each, count in Counter(ids).items() if count > 1]
    if twice:
        raise UsageError(f"two requests have the id {twice[0]!r}: give each its own")


def _sorted(requests: Sequence[Request], head: float, model: Model) -> Plan:
    """Return the plan of whoever only sorts."""
    order = sorted(range(len(requests)), key=lambda index: (requests[index].start, requests[index].length))
    return assess(requests, head, model, order, "by position")


def _told(found: Plan, ids: Sequence[str | int], requests: Sequence[Request], by_position: Plan, unit: str) -> Json:
    weight = sum(request.weight for request in requests) or 1.0
    return {
        "order": [ids[index] for index in found.order],
        "predicted": {
            f"mean{unit}": found.cost / weight,
            f"sum{unit}": found.cost,
            f"end{unit}": found.done[-1] if found.done else 0.0,
            f"times{unit}": list(found.done),
            "method": found.method,
            "by_position": {f"mean{unit}": by_position.cost / weight, f"sum{unit}": by_position.cost},
        },
    }
