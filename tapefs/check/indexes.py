"""The namespace indexes and the names files beside them: whole, and of the sets that they are named after."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from catalog.errors import CatalogError, NotFound
from catalog.index.reader import IndexReader
from catalog.names.builder import build_names
from catalog.names.reader import NamesReader
from catalog.records import BackupSet
from tapefs.check.finding import Finding, Scene, called
from tapefs.sets.build import build_index
from tapefs.sets.finish import promised_by

_FROM_TAPE = "bring it back from the tapes: `tapefs rebuild`, or from a backup of the catalog"
_FROM_ARCHIVES = "`tapefs taf import` reads its archives again, when this index is away"


def check_indexes(scene: Scene) -> Iterator[Finding]:
    """Every complete set has an index, all of whose records are sound, and which shows what the ledger says."""
    sets = scene.complete_sets()
    there = [each for each in sets if scene.home.index(each.set_id).exists()]
    answers = dict(zip((each.set_id for each in there), _read_all(scene, there), strict=True))
    for backup_set in sets:
        if backup_set.set_id not in answers:
            problems = ["it has no index, so nothing of it is shown"]
        else:
            problems = answers[backup_set.set_id] or _disagreements(scene, backup_set)
        for problem in problems:
            yield _finding(scene, backup_set, problem)


def _finding(scene: Scene, backup_set: BackupSet, problem: str) -> Finding:
    segments = scene.ledger.segments(backup_set.set_id)
    if any(segment.archive is not None for segment in segments):
        return Finding("indexes", called(backup_set), problem, _FROM_ARCHIVES)
    if not all(scene.home.trailer(segment.segment_id).exists() for segment in segments):
        return Finding("indexes", called(backup_set), problem, _FROM_TAPE)
    return Finding("indexes", called(backup_set), problem, repair=lambda: _build_again(scene, backup_set))


def _build_again(scene: Scene, backup_set: BackupSet) -> None:
    """Make the index anew from the local trailers: the same numbers, in the same places."""
    home = scene.home
    trailers = [home.trailer(segment.segment_id) for segment in scene.ledger.segments(backup_set.set_id)]
    with ExitStack() as stack:
        parent_id = backup_set.parent_id
        base = None if parent_id is None else stack.enter_context(IndexReader(home.index(parent_id)))
        check = promised_by(backup_set).check
        build_index(home.index(backup_set.set_id), backup_set.set_id, trailers, base, check=check)


def _disagreements(scene: Scene, backup_set: BackupSet) -> list[str]:
    """Compare what a sound index says with the ledger."""
    found = []
    try:
        with IndexReader(scene.home.index(backup_set.set_id)) as index:
            if index.set_id != backup_set.set_id:
                found.append(f"its index is of set {index.set_id}")
            totals = index.totals
            shown = (totals.files, totals.directories, totals.bytes)
            said = (backup_set.files, backup_set.directories, backup_set.bytes)
            if shown != said:
                found.append(f"its index shows {shown} files, directories and bytes, the ledger says {said}")
            rows = [(row.segment_id, row.stored_bytes, row.frames) for row in index.segments()]
    except CatalogError as error:
        return [str(error)]
    segments = [(s.segment_id, s.stored_bytes, s.frames) for s in scene.ledger.segments(backup_set.set_id)]
    if rows != segments:
        found.append("its index names other segments than the ledger")
    return found


def _read_all(scene: Scene, sets: Sequence[BackupSet]) -> Iterator[list[str]]:
    """Yield what is wrong with each index, read in a process that may die of a page that the disk cannot read."""
    waiting = list(sets)
    while waiting:
        paths = b"".join(os.fsencode(scene.home.index(each.set_id)) + b"\n" for each in waiting)
        with tempfile.TemporaryFile() as asked:
            asked.write(paths)
            asked.seek(0)
            with subprocess.Popen(
                [sys.executable, "-m", "catalog.index.verify"], stdin=asked, stdout=subprocess.PIPE
            ) as reader:
                for line in reader.stdout or ():
                    scene.progress(called(waiting[0]))
                    del waiting[0]
                    yield json.loads(line)
        if waiting:
            why = "the disk cannot read all of it" if reader.returncode == -signal.SIGBUS else "reading it failed"
            del waiting[0]
            yield [f"its index cannot be read: {why}"]


def check_names(scene: Scene) -> Iterator[Finding]:
    """Every set's names file is there and sound, so that no search has to make it."""
    for backup_set in scene.complete_sets():
        path = scene.home.names(backup_set.set_id)
        if not scene.home.index(backup_set.set_id).exists():
            continue  # Told by the check of the indexes.
        scene.progress(called(backup_set))
        problem = _names_problem(path, backup_set)
        if problem:
            yield Finding("names", called(backup_set), problem, repair=partial(_names_again, scene, backup_set))


def _names_problem(path: Path, backup_set: BackupSet) -> str:
    try:
        names = NamesReader(path)
    except NotFound:
        return "it has no names file; the next search makes it"
    except CatalogError as error:
        return str(error)
    try:
        if names.set_id != backup_set.set_id:
            return f"its names file is of set {names.set_id}"
        names.read_all()
    except CatalogError as error:
        return str(error)
    finally:
        names.close()
    return ""


def _names_again(scene: Scene, backup_set: BackupSet) -> None:
    build_names(scene.home.index(backup_set.set_id), scene.home.names(backup_set.set_id))
