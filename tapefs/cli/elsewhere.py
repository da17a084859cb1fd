"""What commands tell of a sidecar elsewhere (`--url`): it is asked, where others look into the catalog themselves.

With --json the sidecar's own answers are printed, as docs/http.md has them.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click

from catalog.ids import JobNumber
from catalog.records import CopyState, SetState
from tapefs.cli.output import (
    name_for_people,
    print_json,
    print_lines,
    print_table,
    printable,
    short_ids,
    short_moment,
    size,
)
from tapefs.client.api import Client, JobView
from tapefs.client.calling import every
from tapefs.client.files import FileView
from tapefs.client.sets import SetCopyView, SetDetail, SetView
from tapefs.errors import NoSuchThing, UsageError
from tapefs.vfs.nodes import KIND_NAMES

_KINDS = {name: kind for kind, name in KIND_NAMES.items()}
LATEST = "latest"


def list_jobs_of(client: Client, limit: int, as_json: bool) -> None:
    """Print the newest jobs; 0: all."""
    if as_json:
        print_json(_newest(client.carry_out(every("/api/v1/jobs?offset=0", dict[str, Any])), limit))
        return
    jobs = _newest(client.jobs(limit=10**9), limit)
    if not jobs:
        click.echo("No jobs yet.")
        return
    short = short_ids(each.set_id for each in jobs if each.set_id is not None)
    rows = [(*_job_row(each), short.get(each.set_id or "", "-"), each.error or each.waits_for or "") for each in jobs]
    print_table(("JOB", "NAME", "TYPE", "STATE", "PRIO", "QUEUED", "FINISHED", "SET", "REMARKS"), rows)
    queue = client.queue()
    if queue.is_paused:
        why = f" ({printable(queue.reason)})" if queue.reason else ""
        click.echo(f"The queue is paused{why}: `tapefs jobs resume` lets it go on.")


def _newest(found: list[Any], limit: int) -> list[Any]:
    return found[-limit:] if limit else found


def _job_row(job: JobView) -> tuple[str, ...]:
    times = short_moment(job.queued_at), short_moment(job.finished_at)
    return str(job.number), job.name, job.run_type, job.state.value, str(job.priority), *times


def number_of_job(client: Client, text: str) -> JobNumber:
    """Return the number of the job of that number or name. Raises NoSuchThing, UsageError when several have it."""
    if text.isascii() and text.isdigit():
        return client.job(JobNumber(int(text))).number
    found = [job.number for job in client.jobs(limit=10**9) if job.name == text]
    if not found:
        raise NoSuchThing(f"there is no job {printable(text)}; see `tapefs jobs`")
    if len(found) > 1:
        raise UsageError(f"several jobs have the name {printable(text)}: use the number of one of {found}")
    return found[0]


def set_called(client: Client, text: str) -> SetView:
    """Return the set that `text` names: an id or its beginning, a job's NAME for its newest, NAME/TIME.

    Raises NoSuchThing, UsageError.
    """
    name, slash, time = text.rstrip("/").partition("/")
    named = client.sets(SetState.COMPLETE, name)
    if slash or named:
        found = _at_time(client, name, time or LATEST, named)
    else:
        found = [each for each in client.sets() if name and each.set_id.startswith(name.lower())]
    if not found:
        raise NoSuchThing(f"there is no set {printable(text)}; `tapefs sets` lists them")
    if len(found) > 1:
        raise UsageError(f"several sets begin with {printable(text)}: use more of the id")
    return found[0]


def _at_time(client: Client, name: str, time: str, named: Sequence[SetView]) -> list[SetView]:
    """The folder of a set has its time for a name; its tag begins with the set's id."""
    tag = client.show(f"jobs/{name}/{time}").etag
    return [each for each in named if tag.startswith(each.set_id)]


def list_set(client: Client, text: str, path: bytes, as_json: bool) -> None:
    """Print a directory of a set, or what is at the path when that is no directory."""
    place = b"sets/" + set_called(client, text).set_id.encode() + b"/" + path.strip(b"/")
    view = client.show(place)
    listed = client.folder(place) if view.is_folder else [view]
    if as_json:
        import msgspec

        print_json([msgspec.to_builtins(each) for each in listed])
    else:
        print_lines(_line(each) for each in listed)


def _line(view: FileView) -> bytes:
    mode = stat.filemode(_KINDS.get(view.type, stat.S_IFREG) | int(view.mode, 8))
    facts = f"{mode} {f'{view.uid}:{view.gid}':>11} {view.size:>14,} {short_moment(view.modified)} "
    target = b" -> " + name_for_people(view.target.encode("utf-8", "replace")) if view.target else b""
    return facts.encode() + name_for_people(view.name.encode("utf-8", "replace")) + target


def print_parts(found: SetDetail) -> None:
    """Print on which tapes the parts of a set lie."""
    rows = [
        (each.segment_id, size(each.plain_bytes), size(each.stored_bytes), " ".join(map(_copy, each.copies)))
        for each in found.parts
    ]
    print_table(("SEGMENT", "CONTENT", "ON TAPE", "TAPE:BLOCK OF THE HEADER"), rows)
    if len(rows) < found.segments:
        click.echo(f"{found.segments - len(rows):,} more are not shown.")


def _copy(copy: SetCopyView) -> str:
    place = f"{copy.tape}:{copy.first_block}"
    return place if copy.state is CopyState.GOOD else f"{place} ({copy.state.value})"


def list_tapes(client: Client, as_json: bool) -> None:
    """Print the tapes."""
    found = client.carry_out(every("/api/v1/tapes", dict[str, Any]))
    if as_json:
        print_json(found)
        return
    headers = ("TAPE", "POOL", "STATE", "LTO", "USED", "CAPACITY", "WRITTEN", "LIES IN")
    print_table(headers, [_tape_row(each) for each in found])
    for each in found:
        if each["reason"]:
            click.echo(f"{each['label']}: {printable(each['reason'])}")


def _tape_row(each: dict[str, Any]) -> tuple[str, ...]:
    written = short_moment(None if each["written_at"] is None else datetime.fromisoformat(each["written_at"]))
    place = each["location"] or each["drive"] or ("library" if each["is_in_library"] else "elsewhere")
    sizes = size(each["used_bytes"]), size(each["capacity_bytes"])
    return (each["label"], each["pool"], each["state"], str(each["generation"]), *sizes, written, place)


def list_drives(client: Client, as_json: bool) -> None:
    """Print the drives."""
    found = client.carry_out(every("/api/v1/drives", dict[str, Any]))
    if as_json:
        print_json(found)
        return
    print_table(("DRIVE", "STATE", "TAPE"), [(each["name"], each["state"], each["tape"] or "-") for each in found])
    for each in found:
        if each["failure"]:
            click.echo(f"{each['name']} failed: {printable(each['failure']['reason'])}")
        if each["note"]:
            click.echo(f"{each['name']}: {printable(each['note'])}")
