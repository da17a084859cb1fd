"""`tapefs --url … restore`: from a sidecar elsewhere to a folder of this machine. A thread fetches, this one unpacks.

What comes is an archive that is made while it is sent, and unpacked while it comes, by what restores other archives:
names that lead out of the target are refused, and links are never followed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from tapefs.cli.progress import reporting
from tapefs.cli.restore import noting, progress_to, tell_report
from tapefs.client.calling import Head
from tapefs.errors import BadStructure, TapefsError

if TYPE_CHECKING:
    from tapefs.client.address import Address
    from tapefs.client.api import Client
    from tapefs.taf.records import Member

#: So long a tape may take to come.
_SILENCE_S = 6 * 3600.0
_WINDOW_BYTES = 128 * 1024 * 1024


def restore_from(
    address: Address,
    folder: str,
    paths: Sequence[bytes],
    target: Path,
    *,
    overwrite: bool,
    special: bool,
    log: Path | None,
) -> None:
    """Restore what is below `folder` of the archive, or the paths in it, each with its whole path beneath `target`.

    Raises NoSuchThing, UsageError, Unreachable, TapefsError when something is not as it was recorded.
    """
    from tapefs.client.api import Client

    with Client(address, _SILENCE_S) as client:
        for path in paths or (b"",):
            with reporting("restore") as reporter, noting(log) as note, _packed(client, folder, path) as file:
                from tapefs.taf.reading import extract_members

                report = extract_members(
                    _members(file, path),
                    target,
                    overwrite=overwrite,
                    special=special,
                    progress=progress_to(reporter),
                    note=note,
                )
            tell_report(report, what="as the sidecar has sent it")


class _Pipe:
    """Writes what comes into a pipe."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def begin(self, head: Head) -> bool:
        """Take a whole archive."""
        return head.status == 200

    def take(self, data: bytes) -> None:
        """Write the next bytes, when there is room."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]


@contextmanager
def _packed(client: Client, folder: str, path: bytes) -> Iterator[BinaryIO]:
    """Have the archive of a path to read, as it comes. Raises what the fetching has met."""
    reader, writer = os.pipe()
    failed: list[TapefsError] = []

    def fetch() -> None:
        try:
            client.pack(os.fsencode(folder) + b"/" + path.strip(b"/"), _Pipe(writer))
        except BrokenPipeError:
            pass  # Nobody wants the rest: the other side says why.
        except TapefsError as error:
            failed.append(error)
        finally:
            os.close(writer)

    thread = threading.Thread(target=fetch, name="fetching")
    thread.start()
    try:
        with open(reader, "rb") as file:
            yield file
    except BadStructure as error:
        thread.join()
        raise (failed[0] if failed else TapefsError(f"what the sidecar sends breaks off: {error}")) from error
    finally:
        thread.join()
    if failed:
        raise failed[0]


def _members(file: BinaryIO, path: bytes) -> Iterator[Member]:
    """Yield the members with the paths that they had; the archive has them from the last component of `path` on."""
    import zstandard

    from tapefs.taf.tar import members_of_stream

    above = path.strip(b"/").rpartition(b"/")[0]
    stream = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES).stream_reader(file)
    for member in members_of_stream(stream):
        # Of a whole set the first component is the set itself.
        place = member.path if path else member.path.partition(b"/")[2]
        if place:
            yield replace(member, path=above + b"/" + place if above else place)
