"""What makes a job acceptable, whichever interface asks for it: the only place that checks. Blocks on sources.

Checks raise Invalid with the field's name in the body, which `names` translates for bodies that call it otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import UNSET

from catalog.ids import JobId, JobNumber, new_uuid
from catalog.records import Job
from sidecar.http.requests import Invalid
from sidecar.jobs.going_on import STREAM_WORDS
from tapefs.backup.patterns import BadPattern, parse
from tapefs.client.job_fields import JobFields, Path, decoded
from tapefs.codecs import CODECS, check_level
from tapefs.errors import NoSuchThing, NotNow, SourceError, UsageError

#: A job's name becomes a folder's name in the mount.
LONGEST_NAME_BYTES = 200
#: Types that sets of one job may have in turns; a mirror or an archive is a job of its own.
CHAIN_TYPES = ("full", "incremental", "differential")
TAF_TYPES = {each: each for each in CHAIN_TYPES} | {"monthly_full": "full"}
TYPES = TAF_TYPES | {"mirror": "mirror", "archive": "archive"}
#: What a type demands of fields that may be left out.
DEMANDED: Mapping[str, Mapping[str, object]] = {
    "mirror": {"codec": "tar", "level": CODECS["tar"].default_level, "verify": True},
    "archive": {"verify": True, "retention_days": 0},
}
MOST_COPIES = 8
MOST_THREADS = 1024
MOST_SOURCES = 10_000
MOST_PATTERNS = 1000
#: A century: beyond it somebody has mistaken the unit, and 0 means for ever.
MOST_RETENTION_DAYS = 36_525

OWN_NAMES: Mapping[str, str] = {}


def new_job(fields: JobFields, now_ns: int, names: Mapping[str, str] = OWN_NAMES) -> Job:
    """Return a job that is not recorded yet. Raises Invalid, NoSuchThing, SourceError. Blocking."""
    for field in ("name", "sources"):
        if getattr(fields, field) is UNSET and (field != "sources" or not fields.stream):
            raise Invalid("missing", ["body", names.get(field, field)], "Field required")
    blank = Job(number=JobNumber(0), job_id=JobId(new_uuid()), name="", sources=(), created_at_ns=now_ns)
    return changed_job(blank, fields, names)


def changed_job(job: Job, fields: JobFields, names: Mapping[str, str] = OWN_NAMES) -> Job:
    """Return the job with what `fields` sets, checked. Raises Invalid, NoSuchThing, SourceError. Blocking."""
    changes = fields.changes()
    if fields.name is not UNSET:
        changes["name"] = check_name(fields.name, names.get("name", "name"))
    if fields.type is not UNSET:
        changes["type"] = check_type(fields.type, names.get("type", "type"))
    changes |= _what_it_stores(job, fields, names.get("sources", "sources"))
    if fields.excludes is not UNSET:
        changes["excludes"] = check_excludes(fields.excludes, names.get("excludes", "excludes"))
    if fields.description is not UNSET:
        changes["description"] = _text(fields.description, names.get("description", "description"))
    if fields.copy_pools is not UNSET:
        changes["copy_pools"] = tuple(dict.fromkeys(fields.copy_pools))
    for hooks in ("hooks_before", "hooks_after"):
        if isinstance(chosen := changes.get(hooks), list):
            changes[hooks] = tuple(dict.fromkeys(chosen))
    if fields.after is not UNSET:
        changes["after"] = tuple(JobNumber(number) for number in dict.fromkeys(fields.after))
        check_after(job.number, fields.after)
    if isinstance(fields.retention_days, int):
        check_retention(fields.retention_days, names.get("retention_days", "retention_days"))
    if fields.threads is not UNSET:
        check_threads(fields.threads)
    if fields.codec is not UNSET and fields.level is UNSET and fields.codec != job.codec and fields.codec in CODECS:
        changes["level"] = CODECS[fields.codec].default_level
    changed = of_its_type(msgspec.structs.replace(job, **changes), fields)
    check_codec(changed.codec, changed.level)
    check_bounds(changed)
    return changed


def _what_it_stores(job: Job, fields: JobFields, field: str) -> dict[str, object]:
    """Return the job's sources, or its stream, if `fields` set them. Raises Invalid, NoSuchThing, SourceError."""
    stream = job.stream if fields.stream is UNSET else fields.stream
    if job.number and stream != job.stream:
        raise Invalid("value_error", ["body", "stream"], "cannot be changed: make another job", stream)
    if fields.sources is not UNSET:
        if stream:
            raise Invalid("value_error", ["body", field], "a job stores sources or a stream, not both")
        return {"sources": check_sources(_paths(fields.sources, field), field)}
    if not stream or job.stream:
        return {}
    name = check_name(stream, "stream")
    return {"stream": name, "sources": (b"/" + name.encode(),)}


def check_sources_of(job: Job) -> None:
    """Check that a job that is to run finds its sources. Raises NoSuchThing, SourceError, NotNow. Blocking."""
    if job.stream:
        raise NotNow(f"job {job.number} ({job.name}) {STREAM_WORDS}")
    check_sources(job.sources, "sources")


def of_its_type(job: Job, fields: JobFields) -> Job:
    """Return the job with what its type demands. Raises Invalid when `fields` ask for something else."""
    if not 1 <= job.copies <= MOST_COPIES:
        raise Invalid("value_error", ["body", "copies"], f"must be 1 to {MOST_COPIES}", job.copies)
    if job.type != "archive" and (job.copies > 1 or job.keep_sources):
        field = "copies" if job.copies > 1 else "keep_sources"
        raise Invalid("value_error", ["body", field], "only an archive has further copies, and removes its sources")
    if job.stream and (job.type != "full" or job.retries):
        field = "retries" if job.retries else "type"
        raise Invalid("value_error", ["body", field], "a stream is stored as a full set, and cannot be tried again")
    demanded = DEMANDED.get(job.type, {})
    for field, value in demanded.items():
        asked = getattr(fields, field)
        if asked is not UNSET and asked != value:
            raise Invalid(
                "value_error", ["body", field], f"of a job of type {job.type} must be {value}: leave it out", asked
            )
    return msgspec.structs.replace(job, **demanded)


def check_run_type(job: Job, kind: str) -> str:
    """Return the type of set that one run of the job shall make, empty when it is the job's own. Raises Invalid."""
    plain = check_type(kind, "type")
    if plain == job.type:
        return ""
    if plain in CHAIN_TYPES and job.type in CHAIN_TYPES:
        return plain
    message = f"job {job.number} makes sets of type {job.type}: make another job for a {plain}"
    raise Invalid("value_error", ["body", "type"], message, kind)


def check_name(name: str, field: str) -> str:
    """Return a job's name without surrounding blanks. Raises Invalid."""
    plain = _text(name.strip(), field)
    if not plain or plain in (".", ".."):
        raise Invalid("value_error", ["body", field], "must be a name", name)
    if "/" in plain or not plain.isprintable():
        raise Invalid("value_error", ["body", field], "must be a file name: no slash, no control characters", name)
    if len(plain.encode()) > LONGEST_NAME_BYTES:
        raise Invalid("too_long", ["body", field], f"must be at most {LONGEST_NAME_BYTES} bytes long", name)
    return plain


def _text(text: str, field: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Invalid("value_error", ["body", field], "must be text that UTF-8 can hold") from None
    return text


def check_type(kind: object, field: str, types: Mapping[str, str] = TYPES) -> str:
    """Return the type of set to make. Raises Invalid."""
    plain = kind.lower() if isinstance(kind, str) else ""
    if plain not in types:
        raise Invalid("enum", ["body", field], f"must be one of {', '.join(types)}", kind)
    return types[plain]


def check_codec(codec: str, level: int) -> None:
    """Check codec and level. Raises Invalid."""
    if codec not in CODECS:
        raise Invalid("enum", ["body", "codec"], f"must be one of {', '.join(CODECS)}", codec)
    try:
        check_level(CODECS[codec], level)
    except UsageError as error:
        raise Invalid("value_error", ["body", "level"], str(error), level) from error


def check_threads(threads: int) -> None:
    """Check a number of compression threads; 0 is what the settings say. Raises Invalid."""
    if not 0 <= threads <= MOST_THREADS:
        raise Invalid("value_error", ["body", "threads"], f"must be 0 (as the settings say) to {MOST_THREADS}", threads)


def check_after(number: JobNumber, after: Sequence[int]) -> None:
    """Check that a job does not wait for itself. Raises Invalid."""
    if any(each < 1 or each == number for each in after):
        raise Invalid("value_error", ["body", "after"], "must be numbers of other jobs", list(after))


def check_excludes(patterns: Sequence[str], field: str) -> tuple[str, ...]:
    """Return the patterns. Raises Invalid."""
    if len(patterns) > MOST_PATTERNS:
        raise Invalid("too_long", ["body", field], f"must name at most {MOST_PATTERNS} patterns")
    for place, pattern in enumerate(patterns):
        try:
            parse(_text(pattern, field))
        except BadPattern as error:
            raise Invalid(
                "value_error", ["body", field, place], f"{pattern!r} matches nothing: {error}", pattern
            ) from error
    return tuple(patterns)


def check_bounds(job: Job) -> None:
    """Check that some file may lie within the job's bounds. Raises Invalid."""
    for least, most in (("min_bytes", "max_bytes"), ("min_age_s", "max_age_s")):
        low, high = getattr(job, least), getattr(job, most)
        for field, value in ((least, low), (most, high)):
            if not 0 <= value < 2**63:
                raise Invalid("value_error", ["body", field], "must be a number of at least 0; 0 means no bound", value)
        if high and low > high:
            message = f"must not be less than {least} ({low}): no file would be left"
            raise Invalid("value_error", ["body", most], message, high)


def check_retention(days: int, field: str) -> None:
    """Check a number of days. Raises Invalid."""
    if not 0 <= days <= MOST_RETENTION_DAYS:
        message = f"must be 0 (for ever) to {MOST_RETENTION_DAYS} days; it must not be negative"
        raise Invalid("value_error", ["body", field], message, days)


def _paths(sources: Sequence[Path], field: str) -> list[bytes]:
    found = []
    for place, source in enumerate(sources):
        try:
            found.append(decoded(source))
        except ValueError as error:  # also UnicodeEncodeError and binascii.Error
            raise Invalid("value_error", ["body", field, place], f"is no path: {error}") from error
    return found


def check_sources(sources: Sequence[bytes], field: str) -> tuple[bytes, ...]:
    """Return the sources as absolute paths without needless parts.

    Raises Invalid, NoSuchThing, SourceError. Blocking.
    """
    if not sources:
        raise Invalid("too_short", ["body", field], "must name at least one path", [])
    if len(sources) > MOST_SOURCES:
        raise Invalid("too_long", ["body", field], f"must name at most {MOST_SOURCES} paths")
    return tuple(_check_source(source, [field, place]) for place, source in enumerate(sources))


def _check_source(source: bytes, place: list[str | int]) -> bytes:
    shown = source.decode("utf-8", "backslashreplace")
    parts = source.split(b"/")
    if not source.startswith(b"/") or b"\0" in source or b".." in parts:
        raise Invalid("value_error", ["body", *place], "must be an absolute path without `..`", shown)
    try:
        os.lstat(source)
    except (FileNotFoundError, NotADirectoryError):
        raise NoSuchThing(f"there is no {shown}: name something that exists on the host of the sidecar") from None
    except OSError as error:
        raise SourceError(f"{shown} cannot be read: {error.strerror}") from error
    return b"/" + b"/".join(part for part in parts if part not in (b"", b"."))
