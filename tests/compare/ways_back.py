"""The ways back from tape: the restore command's engine, and foreign tools on the raw payloads."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from catalog.ids import FrameNo, SegmentId, SetId
from catalog.index.reader import IndexReader
from tapefs.recall.stager import Loss, Stager
from tapefs.restore import FrameWish, RestoreReport, restore
from tapefs.restore.records import NotFetched
from tests.backup.rig import Rig


class _Fetcher:
    """Stages what a restore wishes for, at once; puts the right tape in."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._stager: Stager | None = None
        self._label = ""
        self.failures: dict[tuple[SegmentId, int], NotFetched] = {}

    def fetch(self, wishes: Sequence[FrameWish]) -> None:
        for wish in wishes:
            self._stager_for(wish.segment_id).fetch(wish.segment_id, FrameNo(wish.first), FrameNo(wish.last))

    def _stager_for(self, segment_id: SegmentId) -> Stager:
        volume = self._rig.ledger.volume(self._rig.ledger.copies(segment_id)[0].volume_id)
        if self._stager is None or volume.label != self._label:
            self.close()
            self._rig.watcher.put_in(volume.label)
            self._rig.drive.load()
            self._label = volume.label
            self._stager = Stager(self._rig.home, self._rig.ledger, self._rig.drive, volume.volume_id, self)
        return self._stager

    def arrived(self, segment_id: SegmentId, first: FrameNo, last: FrameNo) -> None:
        for frame in range(first, last + 1):
            self.failures.pop((segment_id, frame), None)

    def failed(self, segment_id: SegmentId, first: FrameNo, last: FrameNo, message: str, error: Loss) -> None:
        self.failures |= {(segment_id, frame): NotFetched(message) for frame in range(first, last + 1)}

    def close(self) -> None:
        if self._stager is not None:
            self._stager.close()
            self._stager = None


def bring_back(rig: Rig, set_id: SetId, target: Path, *paths: bytes, overwrite: bool = False) -> RestoreReport:
    """Restore a set, or paths of it, as the command does, with everything from tape."""
    fetcher = _Fetcher(rig)
    reader = IndexReader(rig.home.index(set_id))
    try:
        return restore(
            rig.home,
            reader,
            paths,
            target,
            fetch=fetcher.fetch,
            failed=lambda: fetcher.failures,
            progress=lambda told: None,
            overwrite=overwrite,
        )
    finally:
        reader.close()
        fetcher.close()


#: As `docs/format.md` says it, section 1.
GNU_TAR = (
    "tar --xattrs --xattrs-include='*' --acls --numeric-owner --warning=no-unknown-keyword "
    "--warning=no-timestamp -xpf -"
)
BSDTAR = "LC_ALL=C.UTF-8 bsdtar --xattrs --acls --numeric-owner -xpf -"


def extract(payloads: Sequence[Path], target: Path, command: str = GNU_TAR) -> Path:
    """Unpack payloads, one behind the other; the program must neither fail nor remark on anything."""
    target.mkdir()
    for payload in payloads:
        line = f"zstd -qdc {payload} | (cd {target} && {command})"
        done = subprocess.run(["bash", "-o", "pipefail", "-c", line], capture_output=True)
        words = done.stderr.decode(errors="replace")
        assert done.returncode == 0, words
        assert not words, words
    return target


def payloads(library: Path) -> list[Path]:
    """Return the payload files of a virtual library, found as a person would: behind the headers, by number.

    Of one full set only: it does not look which set they belong to.
    """
    found = {}
    for header in sorted((library / "cartridges").glob("*/?????")):
        with header.open("rb") as file:
            if file.read(16) == b"TAPEFS HEADER 1.":
                told = json.loads(next(line for line in file if line.startswith(b"{")))
                found[told["number"]] = header.with_name(f"{int(header.name) + 1:05}")
    return [found[number] for number in sorted(found)]


def join_parts(top: Path) -> list[Path]:
    """Put files together that were split, as the description of the format says: with `cat`. Return them."""
    joined = []
    # Not rglob: before Python 3.12 it fails at a link whose target is too long a name.
    for folder, _, names in os.walk(top):
        for name in names:
            if name.endswith(".tapefs-part-0000"):
                parts = shlex.quote(f"{folder}/{name}".removesuffix("0000"))
                whole = shlex.quote(f"{folder}/{name}".removesuffix(".tapefs-part-0000"))
                subprocess.run(["bash", "-c", f"cat {parts}* > {whole} && rm {parts}*"], check=True)
                joined.append(Path(folder, name.removesuffix(".tapefs-part-0000")))
    return joined
