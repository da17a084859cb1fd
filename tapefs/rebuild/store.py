"""What was read from tapes so far: one file for each in `rebuild/`. Blocking."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from catalog.crash import crash_point
from catalog.errors import Damaged, StorageFailed
from tapefs.durable import replace_file
from tapefs.rebuild.records import Survey

_after_survey = crash_point("rebuild.survey.after")


class SurveyStore:
    """A folder of surveys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def is_there(self) -> bool:
        """Is a rebuild under way?"""
        return self.folder.is_dir()

    def surveys(self) -> list[Survey]:
        """Return all, by label. Raises Damaged."""
        found = []
        for path in self.folder.glob("*.json") if self.is_there else ():
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=Survey))
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise Damaged(
                    f"{path} is damaged ({error}): remove it, and its tape is read again", str(path)
                ) from error
        return sorted(found, key=lambda survey: (survey.tape.label, survey.tape.volume_id))

    def keep(self, survey: Survey) -> None:
        """Keep what a tape says; in place of what it said before. Raises StorageFailed."""
        path = self.folder / f"{survey.tape.volume_id}.json"
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            replace_file(path, msgspec.json.encode(survey))
        except OSError as error:
            raise StorageFailed(f"cannot write {path}: {error.strerror}", retryable=False) from error
        _after_survey()

    def forget(self) -> None:
        """All is entered. Raises OSError."""
        if self.is_there:
            shutil.rmtree(self.folder)
