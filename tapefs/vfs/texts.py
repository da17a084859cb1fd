"""The texts in the virtual part of the tree: README.txt, and CONTENTS.txt of a tape. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from catalog.records import BackupSet, Segment, SegmentCopy, Volume

README = """\
This is a tape archive. Everything here is read-only and was put here by backups.

  jobs/NAME/TIME/    the files of one backup, at their source paths; TIME is UTC
  jobs/NAME/latest   the newest backup of that job
  sets/SETID         the same trees, by the id that `tapefs backup` printed
  tapes/LABEL/       what lies on a tape, and how to read it without tapefs (root only)

Looking around (ls, find, du, stat) never moves a tape. Reading a file that is only on tape waits until it has
been fetched. To see where a file is:

  getfattr -n user.tapefs.state FILE     online: at hand   nearline: on tape   staging: on its way   locked   offline

To fetch many files, name them first, so that the tape is read in its own order:

  tapefs stage NAME/TIME:PATH
"""


class OnTape(NamedTuple):
    """A segment on a tape, with what it is part of."""

    copy: SegmentCopy
    segment: Segment
    backup_set: BackupSet | None
    #: NAME/TIME of the set.
    set_name: str


def tape_contents(volume: Volume, segments: Sequence[OnTape]) -> str:
    """Return CONTENTS.txt: the tape, its sets, its segments in tape order, and the commands that read it."""
    lines = [
        f"Tape      {volume.label}",
        f"UUID      {volume.volume_id}",
        f"Pool      {volume.pool}",
        f"State     {volume.state.value}{': ' + volume.reason if volume.reason else ''}",
        f"Used      {volume.used_bytes:,} of {volume.capacity_bytes:,} bytes",
        "",
        *_sets(segments),
        "",
        *_segments(segments),
        "",
        *_commands(volume, segments),
    ]
    return "\n".join(lines) + "\n"


def _sets(segments: Sequence[OnTape]) -> list[str]:
    if not segments:
        return ["No backup lies on this tape."]
    seen = {each.segment.set_id: each for each in segments}
    lines = ["Sets with data on it:"]
    for set_id, each in seen.items():
        state = each.backup_set.state.value if each.backup_set is not None else "unknown"
        lines.append(f"  {set_id}  {state:<9} {each.set_name}")
    return lines


def _segments(segments: Sequence[OnTape]) -> list[str]:
    if not segments:
        return []
    lines = ["Segments in tape order (a payload is one tape file; block numbers count filemarks):"]
    for each in segments:
        lines.append(
            f"  payload in file {each.copy.header_file + 1:>5}, block {each.copy.payload_block:>9}:"
            f" segment {each.segment.number} of {each.set_name}, {each.segment.stored_bytes:,} bytes"
            f" of {each.segment.codec} ({each.segment.plain_bytes:,} unpacked), {each.segment.members:,} members,"
            f" {each.segment.segment_id}"
        )
    return lines


def _commands(volume: Volume, segments: Sequence[OnTape]) -> list[str]:
    # One example of every format that lies on the tape.
    if volume.foreign:
        return _of_foreign(segments)
    examples = {each.segment.codec: each.copy for each in reversed(segments)}
    if not examples:
        return _restoring("zstd", "FILE", volume.block_size)
    lines = [_restoring(name, copy.header_file + 1, copy.block_size) for name, copy in reversed(examples.items())]
    return [line for each in lines for line in each]


def _of_foreign(segments: Sequence[OnTape]) -> list[str]:
    """Name the archives of another program: they are files of a volume that is mounted."""
    lines = ["They are archives that TAF has written to an LTFS volume. Mounted, it has these files:"]
    for each in segments:
        if each.segment.archive is not None:
            path = each.segment.archive.path.decode("utf-8", "backslashreplace")
            lines.append(f"  {path}  {each.segment.segment_id}")
    return [*lines, "tar and 7z unpack them, and so does `tapefs taf extract`."]


def _restoring(payload_format: str, number: object, block_size: int) -> list[str]:
    # Here, because compressors take time to import and few ever read this text.
    from tapefs.codecs import codec_of_format
    from tapefs.format.texts import restore_commands

    return [
        f"To restore a payload into the current folder without tapefs, here file {number}:",
        "  mt -f /dev/nst0 rewind",
        "  mt -f /dev/nst0 setblk 0",
        f"  mt -f /dev/nst0 fsf {number}",
        *(f"  {line}" for line in restore_commands(block_size, codec_of_format(payload_format))),
    ]
