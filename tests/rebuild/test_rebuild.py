"""The catalog comes back from the tapes alone, as it was."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from catalog.lmdb_ledger import LmdbLedger
from catalog.records import SetState
from tapefs.home import Home
from tapefs.rebuild.loading import Loading
from tapefs.rebuild.records import Method
from tapefs.rebuild.run import Report, rebuild
from tests.backup.rig import Rig
from tests.backup.trees import random_files
from tests.compare.every_kind import every_kind
from tests.keys.rig import encrypt
from tests.rebuild.same import Before, now_indexes, now_trailers, records, reopened, shown


def nobody(_: str) -> bool:
    return False


def silence(_text: str, _done: int, _of: int) -> None:
    return None


def rebuilt(home: Home, method: Method = Method.INDEX, *tapes: str) -> Report:
    """Rebuild as the command does."""
    ledger = LmdbLedger.open(home.ledger) if home.ledger.exists() else LmdbLedger.create(home.ledger, time.time_ns())
    with ledger, Loading(home, nobody) as loading:
        return rebuild(home, ledger, loading, method, tapes, silence)


@pytest.mark.log_warnings
@pytest.mark.parametrize("method", list(Method))
def test_encrypted_tapes_with_their_key(make_rig: Callable[..., Rig], tmp_path: Path, method: Method) -> None:
    """As without a key, every byte; a tape whose key is locked is told, and is read once it is not."""
    rig = make_rig(tapes=2, backup_settings="segment_bytes = 1048576")
    identity = encrypt(rig)
    rig.close()
    rig.open()
    tree = random_files(tmp_path / "secret", 60, 50_000)
    set_id = rig.backup(tree, name="secret")
    assert len(rig.ledger.segments(set_id)) > 1
    rig.close()
    before = Before(rig.home, LmdbLedger.open(rig.home.ledger), tmp_path / "aside")
    rig.home.keyring.replace([])
    report = rebuilt(rig.home, method)
    assert "which is locked" in report.passed_over["TP0001L9"] or "not here" in report.passed_over["TP0001L9"]
    assert report.is_open or not report.surveys
    rig.home.keyring.add(identity)
    report = rebuilt(rig.home, method)
    assert [each.set_id for each in report.outcome.complete] == [set_id]
    reopened(rig)
    if method is Method.PAYLOADS:
        was, now = (shown(folder / f"{set_id}.lmdb") for folder in (before.aside / "index", rig.home.indexes))
        assert now == was
    else:
        assert records(rig.ledger) == before.records
        assert now_indexes(rig.home) == before.indexes()
        assert now_trailers(rig.home) == before.trailers()


def chain(rig: Rig, tmp_path: Path) -> None:
    """Make a full set, two that build on it and a mirror, with all that a tree can have; a set in a 7z; some copies."""
    tree = every_kind(tmp_path / "tree")
    rig.backup(tree, name="nightly", type="incremental", retention_days=30, excludes=("*.o",), description="all of it")
    job = rig.ledger.jobs()[0]
    for number in range(2):
        (tree / f"new-{number}").write_bytes(bytes(range(256)) * 40 * number)
        (tree / "changed").write_text(f"as of {number}")
        rig.again(job)
    rig.backup(random_files(tmp_path / "mirrored", 30, 40_000), name="mirrored", type="mirror", verify=True)
    rig.backup(random_files(tmp_path / "packed", 5, 9_000), name="packed", codec="py7zr", level=1)
    rig.backup(
        random_files(tmp_path / "kept", 9, 30_000),
        name="kept",
        type="archive",
        copies=2,
        keep_sources=True,
        verify=True,
        codec="pgzip",
        level=5,
    )


@pytest.mark.parametrize("method", [Method.INDEX, Method.TRAILERS])
def test_the_catalog_is_as_it_was(make_rig: Callable[..., Rig], tmp_path: Path, method: Method) -> None:
    """Every record, every byte of every index and trailer is as before; the next backup builds on what was rebuilt."""
    rig = make_rig(tapes=4, backup_settings="segment_bytes = 1048576")
    chain(rig, tmp_path)
    rig.close()
    before = Before(rig.home, LmdbLedger.open(rig.home.ledger), tmp_path / "aside")
    assert sum(name.startswith("set ") for name in before.records) == 6

    report = rebuilt(rig.home, method)
    reopened(rig)
    assert report.ignored == []
    assert not report.is_open
    assert len(report.outcome.complete) == 6
    assert records(rig.ledger) == before.records
    assert rig.ledger.installation().installation_id == before.installation
    assert now_indexes(rig.home) == before.indexes()
    assert now_trailers(rig.home) == before.trailers()
    assert rig.ledger.verify() == []
    assert not rig.home.rebuild.exists()

    job = rig.ledger.jobs()[0]
    (tmp_path / "tree" / "later").write_text("later")
    again = rig.ledger.backup_set(rig.again(job))
    assert (again.type, again.state) == ("incremental", SetState.COMPLETE)
    assert again.number == 7


@pytest.mark.parametrize("codec", ["zstd", "pgzip", "tar"])
def test_payloads_alone_are_enough(make_rig: Callable[..., Rig], tmp_path: Path, codec: str) -> None:
    """A full set shows what it did, under the same numbers, but for what no archive holds; what builds on it keeps all
    that was deleted since."""
    rig = make_rig(tapes=4, backup_settings="segment_bytes = 1048576\nframe_bytes = 262144")
    tree = every_kind(tmp_path / "tree")
    (tree / "goes").write_text("goes")
    (tree / "file-then-directory").write_text("file")
    (tree / "directory-then-file").mkdir()
    level = {} if codec == "zstd" else {"level": 5 if codec == "pgzip" else 0}
    full = rig.backup(tree, name="nightly", type="incremental", codec=codec, **level)
    (tree / "goes").unlink()
    (tree / "file-then-directory").unlink()
    (tree / "file-then-directory").mkdir()
    (tree / "file-then-directory" / "in it").write_text("in it")
    (tree / "directory-then-file").rmdir()
    (tree / "directory-then-file").write_text("file")
    (tree / "new").write_text("new")
    second = rig.again(rig.ledger.jobs()[0])
    segments = [segment.payload_sha256 for segment in rig.ledger.segments(full)]
    assert len(segments) > 2
    rig.close()
    before = Before(rig.home, LmdbLedger.open(rig.home.ledger), tmp_path / "aside")

    report = rebuilt(rig.home, Method.PAYLOADS)
    reopened(rig)
    assert report.outcome.incomplete == []
    assert report.ignored == []
    assert [segment.payload_sha256 for segment in rig.ledger.segments(full)] == segments
    was, now = (shown(folder / f"{full}.lmdb") for folder in (before.aside / "index", rig.home.indexes))
    assert now.keys() == was.keys()
    for path in now:
        if now[path] != was[path]:
            # Another name of a file in an earlier segment: archives know of links within a segment only.
            number, first = was[path][0], was[path][11]
            assert number != first
            assert now[path][:9] == (*was[path][:8], now[path][8])
    was, now = (shown(folder / f"{second}.lmdb") for folder in (before.aside / "index", rig.home.indexes))
    top = bytes(tree)
    assert now.keys() - was.keys() == {top + b"/goes"}
    assert not was.keys() - now.keys()
    assert now[top + b"/new"][1:9] == was[top + b"/new"][1:9]
    assert any("deletions" in remark for remark in report.outcome.remarks)
    assert rig.ledger.verify() == []


@pytest.mark.log_warnings
def test_a_7z_needs_its_trailer(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """Payloads of that kind tell too little: even with `--from payloads` the TRAILER is read, and all is as it was."""
    rig = make_rig(tapes=1)
    rig.backup(random_files(tmp_path / "packed", 5, 9_000), name="packed", codec="py7zr", level=1)
    rig.close()
    before = Before(rig.home, LmdbLedger.open(rig.home.ledger), tmp_path / "aside")
    report = rebuilt(rig.home, Method.PAYLOADS)
    reopened(rig)
    assert len(report.outcome.complete) == 1
    assert now_indexes(rig.home) == before.indexes()
    assert records(rig.ledger) == before.records


def test_large_sets_are_passed_over_from_the_end(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """A SET INDEX stands for the segments before it: these are not even looked at; small sets are walked over."""
    rig = make_rig(tapes=1, backup_settings="segment_bytes = 1048576")
    rig.backup(random_files(tmp_path / "first", 60, 100_000, seed=1), name="first")
    rig.backup(random_files(tmp_path / "small", 3, 1_000, seed=2), name="small")
    rig.backup(random_files(tmp_path / "last", 60, 100_000, seed=3), name="last")
    counts = [len(rig.ledger.segments(each.set_id)) for each in rig.ledger.backup_sets()]
    assert min(counts[0], counts[2]) > 4
    rig.close()
    before = Before(rig.home, LmdbLedger.open(rig.home.ledger), tmp_path / "aside")
    report = rebuilt(rig.home)
    reopened(rig)
    (survey,) = report.surveys
    assert (len(survey.headers), len(survey.segments)) == (counts[0], sum(counts))
    assert report.ignored == []
    assert records(rig.ledger) == before.records
    assert now_indexes(rig.home) == before.indexes()
    assert rig.backup(tmp_path / "small", name="again")
