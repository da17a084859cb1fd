"""Making, opening, sharing and growing an LMDB ledger, and what happens when the storage below fails."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from catalog.checked import Codec
from catalog.errors import CatalogError, Conflict, Damaged, NotFound, StorageFailed, WrongVersion
from catalog.ledger_store import environment as environments
from catalog.ledger_store import sets, transaction
from catalog.ledger_store.environment import DATA_FILE, SharedEnvironment
from catalog.ledger_store.tables import COUNTERS, LAYOUT_KEY, SET_COUNTER, Layout
from catalog.ledger_store.translate import translate
from catalog.lmdb_ledger import LmdbLedger
from tests.catalog.builders import NOW, job_of, pin_of, segment_of, set_of, staged, started, volume_of
from tests.catalog.lmdb_tools import raw, run, store

# -- making ----------------------------------------------------------------------------------------------------------


def test_create_makes_private_files_and_leaves_nothing_else(folder: Path, ledger: LmdbLedger) -> None:
    assert sorted(path.name for path in folder.parent.iterdir()) == ["ledger"]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / DATA_FILE).stat().st_mode & 0o777 == 0o600


def test_create_refuses_what_exists(folder: Path, ledger: LmdbLedger) -> None:
    installation = ledger.installation()
    with pytest.raises(Conflict, match="exists already"):
        LmdbLedger.create(folder, NOW)
    assert ledger.installation() == installation
    (folder.parent / "file").write_text("mine")
    with pytest.raises(Conflict):
        LmdbLedger.create(folder.parent / "file", NOW)


def test_create_takes_an_empty_folder(folder: Path) -> None:
    folder.mkdir()
    with LmdbLedger.create(folder, NOW) as ledger:
        assert ledger.volumes() == []


def test_a_ledger_of_an_earlier_version_has_no_pins_until_it_is_written(folder: Path, ledger: LmdbLedger) -> None:
    """Opened for reading it is as it was, opened for writing it gains the database; nothing else changes."""
    installation = ledger.installation()
    ledger.close()
    with raw(folder) as environment, environment.begin(write=True) as transaction:
        for name in (b"pins", b"pools"):
            transaction.drop(environment.open_db(name, txn=transaction))
    with LmdbLedger.open(folder, readonly=True) as old:
        assert (old.pins(), old.pools()) == ([], [])
        assert old.verify() == []
        assert old.installation() == installation
    segment = segment_of("segment", set_of("set", job_of("job")), 0)
    with LmdbLedger.open(folder) as new:
        assert new.pins() == []
        pin = new.put_pin(pin_of("pin", segment, (0, 1)))
    with LmdbLedger.open(folder, readonly=True) as old:
        assert old.pins() == [pin]


def test_create_without_a_parent(folder: Path) -> None:
    with pytest.raises(StorageFailed, match="No such file"):
        LmdbLedger.create(folder / "deeper", NOW)


def test_a_failed_creation_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(StorageFailed, match="No space"):
        LmdbLedger.create(folder, NOW)
    assert list(folder.parent.iterdir()) == []


def test_the_settings_that_keep_commits_safe(ledger: LmdbLedger) -> None:
    """A kill does not show a missing sync, only a power cut would."""
    assert ledger._environment is not None
    flags = ledger._environment._lmdb.flags()
    assert (flags["sync"], flags["metasync"], flags["writemap"], flags["lock"]) == (True, True, False, True)
    assert ledger._environment._lmdb.lib_version()[:2] == (0, 9)


def test_the_engine_is_not_chosen_by_the_environment(folder: Path, ledger: LmdbLedger) -> None:
    ledger.close()
    assert run(GROW, folder, LMDB_DEFAULT_LIB_VERSION="1")[0] == 0
    with LmdbLedger.open(folder) as opened:
        assert len(opened.volumes()) == 300


# -- opening ---------------------------------------------------------------------------------------------------------


def test_a_missing_ledger_is_not_found_and_not_made(folder: Path) -> None:
    with pytest.raises(NotFound, match="no ledger"):
        LmdbLedger.open(folder)
    folder.mkdir()
    with pytest.raises(NotFound):
        LmdbLedger.open(folder, readonly=True)
    assert list(folder.iterdir()) == []


def test_all_is_there_after_reopening(folder: Path, ledger: LmdbLedger) -> None:
    stage = staged(ledger)
    segment = stage.commit(ledger, "segment", 0, 4, 2)
    before = ledger.volumes(), ledger.jobs(), ledger.backup_sets(), ledger.events_since(0)
    ledger.close()
    with LmdbLedger.open(folder) as opened:
        assert (opened.volumes(), opened.jobs(), opened.backup_sets(), opened.events_since(0)) == before
        assert opened.segments(stage.backup_set.set_id) == [segment]


def test_another_layout_is_refused_by_both_names(folder: Path, ledger: LmdbLedger) -> None:
    ledger.close()
    store(folder, "meta", LAYOUT_KEY, Codec("meta", Layout).encode(LAYOUT_KEY, Layout(version=2, lmdb="0.9.36")))
    with pytest.raises(WrongVersion, match=r"has layout 2, this tapefs knows layout 1"):
        LmdbLedger.open(folder)
    with pytest.raises(WrongVersion):
        LmdbLedger.open(folder, readonly=True)
    store(folder, "meta", LAYOUT_KEY, None)
    with pytest.raises(Damaged, match="does not state its layout"):
        LmdbLedger.open(folder)


def test_a_foreign_lmdb_is_damage(folder: Path) -> None:
    lmdb.open(str(folder)).close()
    with pytest.raises(Damaged, match="no ledger of tapefs"):
        LmdbLedger.open(folder)


@pytest.mark.parametrize("content", [b"", b"\xff" * 8192, b"no database\n"])
def test_a_file_that_is_no_database_is_damage(folder: Path, content: bytes) -> None:
    folder.mkdir()
    (folder / DATA_FILE).write_bytes(content)
    with pytest.raises(Damaged):
        LmdbLedger.open(folder)
    assert (folder / DATA_FILE).read_bytes() == content


def test_a_file_that_was_cut_short_is_damage(folder: Path, ledger: LmdbLedger) -> None:
    """Without the probe the process would be killed by SIGBUS."""
    for number in range(300):
        ledger.add_volume(volume_of(f"T{number}"))
    ledger.close()
    size = (folder / DATA_FILE).stat().st_size
    os.truncate(folder / DATA_FILE, size // 2)
    with pytest.raises(Damaged, match="cut short"):
        LmdbLedger.open(folder)


def test_a_file_that_ends_before_its_last_page_may_be_whole(
    folder: Path, ledger: LmdbLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages that were taken and given back in the last transaction are never written."""
    staged(ledger)
    ledger.close()
    probed: list[Path] = []
    probe = environments._probe

    def remember(path: Path) -> None:
        probed.append(path)
        probe(path)

    monkeypatch.setattr(environments, "_probe", remember)
    with raw(folder) as environment:
        last_page = environment.info()["last_pgno"]
    LmdbLedger.open(folder).close()
    assert probed == []
    monkeypatch.setattr(SharedEnvironment, "_used_bytes", lambda self: (last_page + 2) * 4096)
    LmdbLedger.open(folder).close()
    assert probed == [folder]


def test_no_permission(folder: Path, ledger: LmdbLedger) -> None:
    """As an ordinary user, whom another's files refuse."""
    ledger.close()
    if os.geteuid() != 0:
        folder.chmod(0)
    code = """
import os, sys
from pathlib import Path
from catalog.errors import StorageFailed
from catalog.lmdb_ledger import LmdbLedger
if os.geteuid() == 0:
    os.setuid(65534)
try:
    LmdbLedger.open(Path(sys.argv[1]))
except StorageFailed as error:
    print(error, error.retryable)
"""
    for parent in (folder.parent, folder.parent.parent, folder.parent.parent.parent):
        parent.chmod(0o755)
    returncode, output = run(code, folder)
    folder.chmod(0o700)
    assert (returncode, "Permission denied" in output, output.split()[-1:]) == (0, True, ["False"])


# -- sharing ---------------------------------------------------------------------------------------------------------


def test_ledgers_of_one_process_share_an_environment(folder: Path, ledger: LmdbLedger) -> None:
    second = LmdbLedger.open(folder)
    link = folder.parent / "link"
    link.symlink_to(folder)
    third = LmdbLedger.open(link)
    ledger.close()
    third.add_volume(volume_of("T1"))
    third.close()
    assert second.volumes() == [volume_of("T1")]
    second.close()
    for closed in (ledger, second, third):
        with pytest.raises(StorageFailed, match="is closed"):
            closed.volumes()
    with raw(folder):
        pass  # LMDB would refuse if the environment were still open.


def test_two_ledgers_are_two(folder: Path, ledger: LmdbLedger) -> None:
    with LmdbLedger.create(folder.parent / "other", NOW) as other:
        other.add_volume(volume_of("T1"))
        assert ledger.volumes() == []
        assert other.installation() != ledger.installation()


def test_readonly_refuses_to_write(folder: Path, ledger: LmdbLedger) -> None:
    ledger.add_volume(volume_of("T1"))
    with LmdbLedger.open(folder, readonly=True) as reader:
        assert reader.volumes() == [volume_of("T1")]
        with pytest.raises(StorageFailed, match="reading only: no claim_volume"):
            reader.claim_volume(volume_of("T1").volume_id)
    assert ledger.volume_by_label("T1").claim == 0


def test_a_writer_joins_a_reader(folder: Path, ledger: LmdbLedger) -> None:
    ledger.close()
    with LmdbLedger.open(folder, readonly=True) as reader:
        with LmdbLedger.open(folder) as writer:
            writer.add_volume(volume_of("T1"))
            assert reader.volumes() == [volume_of("T1")]
            with pytest.raises(StorageFailed):
                reader.add_volume(volume_of("T2"))
        assert reader.volumes() == [volume_of("T1")]


def test_a_forked_child_is_refused(folder: Path, ledger: LmdbLedger) -> None:
    """It would spoil its parent's locks; also a new opening and closing there is refused or harmless."""
    ledger.add_volume(volume_of("T1"))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            refused = 0
            for act in (ledger.volumes, lambda: ledger.add_job(job_of("a")), lambda: LmdbLedger.open(folder)):
                try:
                    act()
                except StorageFailed as error:
                    refused += "before a fork" in str(error)
            ledger.close()
            status = 0 if refused == 3 else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ledger.add_job(job_of("a")).number == 1


def test_many_threads(folder: Path, ledger: LmdbLedger) -> None:
    """Every thread's operations are done once each, while others read."""
    ledger.add_volume(volume_of("T1"))
    volume_id, stop = volume_of("T1").volume_id, threading.Event()
    claims: list[int] = []
    seen: list[int] = []

    def read() -> None:
        while not stop.is_set():
            seen.append(ledger.volume(volume_id).claim)

    writers = [
        threading.Thread(target=lambda: claims.extend(ledger.claim_volume(volume_id) for _ in range(25)))
        for _ in range(4)
    ]
    reader = threading.Thread(target=read)
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    reader.join()
    assert sorted(claims) == list(range(1, 101))
    assert seen == sorted(seen)


# -- growing ---------------------------------------------------------------------------------------------------------


def test_the_map_grows(folder: Path, ledger: LmdbLedger) -> None:
    ledger.close()
    with LmdbLedger.open(folder, map_size_bytes=256 << 10) as small:
        for number in range(400):
            small.add_volume(volume_of(f"T{number:04}", pool="p" * 2000))
        assert len(small.volumes()) == 400
        assert small.verify() == []
    assert (folder / DATA_FILE).stat().st_size > 512 << 10


def test_the_map_grows_while_others_read(folder: Path, ledger: LmdbLedger) -> None:
    ledger.close()
    problems: list[BaseException] = []
    with LmdbLedger.open(folder, map_size_bytes=256 << 10) as small:
        stop = threading.Event()

        def read() -> None:
            try:
                while not stop.is_set():
                    small.volumes()
            except CatalogError as error:
                problems.append(error)

        readers = [threading.Thread(target=read) for _ in range(3)]
        for thread in readers:
            thread.start()
        for number in range(200):
            small.add_volume(volume_of(f"T{number:04}", pool="p" * 2000))
        stop.set()
        for thread in readers:
            thread.join()
        assert problems == []
        assert len(small.volumes()) == 200


GROW = """
import sys
from pathlib import Path
from catalog.lmdb_ledger import LmdbLedger
from tests.catalog.builders import volume_of
with LmdbLedger.open(Path(sys.argv[1]), map_size_bytes=256 << 10) as ledger:
    for number in range(300):
        ledger.add_volume(volume_of(f"T{number:04}", pool="p" * 2000))
"""


@pytest.mark.parametrize("readonly", [True, False])
def test_a_map_that_another_process_has_grown_is_adopted(folder: Path, ledger: LmdbLedger, readonly: bool) -> None:
    ledger.close()
    with LmdbLedger.open(folder, readonly=readonly, map_size_bytes=256 << 10) as small:
        assert small.volumes() == []
        assert run(GROW, folder)[0] == 0
        if not readonly:
            small.add_volume(volume_of("last"))
        assert len(small.volumes()) == (300 if readonly else 301)


# -- failing ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small tmpfs: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


def _fill(ledger: LmdbLedger, done: list[str]) -> None:
    """Add tapes, and their labels to `done`, until the ledger refuses."""
    while True:
        label = f"T{len(done):05}"
        ledger.add_volume(volume_of(label, pool="p" * 3000))
        done.append(label)


def test_a_full_disk_is_named_and_loses_nothing(small_disk: Path) -> None:
    with LmdbLedger.create(small_disk / "ledger", NOW) as ledger:
        done: list[str] = []
        with pytest.raises(StorageFailed, match=r"disk that holds the ledger .* is full") as caught:
            _fill(ledger, done)
        assert len(done) > 100
        assert caught.value.retryable
        assert [volume.label for volume in ledger.volumes()] == done
        assert ledger.verify() == []
    with LmdbLedger.open(small_disk / "ledger") as ledger:
        assert [volume.label for volume in ledger.volumes()] == done


def test_work_goes_on_when_a_full_disk_has_room_again(small_disk: Path) -> None:
    with LmdbLedger.create(small_disk / "ledger", NOW) as ledger:
        (small_disk / "filler").write_bytes(bytes(2_500_000))
        with pytest.raises(StorageFailed, match="is full"):
            _fill(ledger, [])
        (small_disk / "filler").unlink()
        ledger.add_volume(volume_of("last"))
        assert ledger.volume_by_label("last") == volume_of("last")


def _fail_once(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    attempt = SharedEnvironment._attempt
    errors = [error]

    def failing(self: SharedEnvironment, *args: object) -> object:
        if errors:
            raise errors.pop()
        return attempt(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(SharedEnvironment, "_attempt", failing)


@pytest.mark.parametrize("error", [lmdb.PanicError("commit"), lmdb.CorruptedError("page")])
def test_after_a_fatal_error_the_ledger_is_closed_and_can_be_opened_anew(
    folder: Path, ledger: LmdbLedger, monkeypatch: pytest.MonkeyPatch, error: lmdb.Error
) -> None:
    reader = LmdbLedger.open(folder, readonly=True)
    _fail_once(monkeypatch, error)
    with pytest.raises(CatalogError) as caught:
        ledger.add_volume(volume_of("T1"))
    assert isinstance(caught.value, Damaged) == isinstance(error, lmdb.CorruptedError)
    assert not caught.value.retryable
    for closed in (ledger, reader):
        with pytest.raises(StorageFailed, match="is closed"):
            closed.volumes()
    with LmdbLedger.open(folder) as opened:
        opened.add_volume(volume_of("T1"))
        reader.close()
        ledger.close()
        assert opened.volumes() == [volume_of("T1")]


def test_a_full_reader_table_is_retryable(folder: Path, ledger: LmdbLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    _fail_once(monkeypatch, lmdb.ReadersFullError("begin"))
    with pytest.raises(StorageFailed) as caught:
        ledger.add_volume(volume_of("T1"))
    assert caught.value.retryable
    ledger.add_volume(volume_of("T1"))


def test_the_slot_of_a_killed_reader_is_freed(folder: Path, ledger: LmdbLedger) -> None:
    """Else its old pages would be kept and the file would grow for ever."""
    code = """
import os, signal, sys
from catalog.ledger_store.environment import open_lmdb
from pathlib import Path
environment = open_lmdb(Path(sys.argv[1]), readonly=True, map_size_bytes=1 << 20)
transaction = environment.begin()
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert run(code, folder)[0] == -9
    shared = ledger._environment
    assert shared is not None
    assert len(shared._lmdb.readers().splitlines()) == 2  # A heading and the dead one.
    shared._readers_checked_s -= 61
    ledger.add_volume(volume_of("T1"))
    assert "no active readers" in shared._lmdb.readers()


@pytest.mark.parametrize(
    ("code", "retryable"),
    [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EIO, False), (errno.EACCES, False), (errno.EAGAIN, True)],
)
def test_errors_of_the_system(tmp_path: Path, code: int, retryable: bool) -> None:
    error = lmdb.Error("mdb_txn_commit")
    error.code = code  # type: ignore[misc]  # As LMDB's own errors have it.
    translated = translate(error, tmp_path)
    assert isinstance(translated, StorageFailed)
    assert translated.retryable is retryable


# -- limits ----------------------------------------------------------------------------------------------------------


def test_the_numbers_of_sets_end(folder: Path, ledger: LmdbLedger) -> None:
    ledger.close()
    value = COUNTERS.codec.encode(SET_COUNTER, sets.MAX_SET_NUMBER - 1)
    store(folder, "meta", SET_COUNTER, value)
    with LmdbLedger.open(folder) as opened:
        assert started(opened, "last")[1].number == 2**24 - 1
        job = opened.queue_job(opened.add_job(job_of("more")).number, NOW)
        with pytest.raises(Conflict, match="no number"):
            opened.begin_set(set_of("one too many", job))


def test_old_events_are_forgotten(ledger: LmdbLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction, "KEPT_EVENTS", 5)
    ledger.add_volume(volume_of("T1"))
    for _ in range(9):
        ledger.claim_volume(volume_of("T1").volume_id)
    assert [event.number for event in ledger.events_since(0)] == [6, 7, 8, 9, 10]
    assert [event.detail for event in ledger.events_since(8)] == ["8", "9"]
