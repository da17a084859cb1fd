import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from catalog.index.reader import IndexReader
from tapefs.home import Home
from tapefs.restore import RestoreProgress, RestoreReport, restore
from tapefs.settings.backup import StagingSettings
from tapefs.settings.whole import Settings
from tests.restore.archive import SET, Archive, Mover

Restorer = Callable[..., RestoreReport]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    path = tmp_path / "home"
    for folder in ("staging", "index"):
        (path / folder).mkdir(parents=True)
    return Home(path, Settings(format=1, staging=StagingSettings()))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


@pytest.fixture
def progress() -> list[RestoreProgress]:
    return []


@pytest.fixture
def bring_back(home: Home, target: Path, progress: list[RestoreProgress]) -> Iterator[Restorer]:
    """Restore an archive to the target; `mover` may be prepared by the caller; `real` goes through an index on disk."""

    def run(
        archive: Archive, *paths: bytes, mover: Mover | None = None, real: bool = False, **options: object
    ) -> RestoreReport:
        where = options.pop("target", target)
        with mover or Mover(archive, home.staging) as at_work:
            options.setdefault("fetch", at_work.fetch)
            options.setdefault("failed", at_work.failed)
            if not real:
                return restore(home, archive, paths, where, progress=progress.append, **options)
            archive.write(home.index(SET))
            reader = IndexReader(home.index(SET))
            try:
                return restore(home, reader, paths, where, progress=progress.append, **options)
            finally:
                reader.close()

    yield run
    # Not rglob: before Python 3.12 it fails at a link whose target is too long a name.
    leftovers = [
        name for _, below, names in os.walk(target) for name in (*below, *names) if name.startswith(".tapefs-")
    ]
    assert not leftovers


@pytest.fixture
def mover(home: Home) -> Callable[[Archive], Mover]:
    return lambda archive: Mover(archive, home.staging)


def reasons(report: RestoreReport) -> Sequence[str]:
    return [trouble.reason for trouble in report.troubles]
