"""TAF's archives come into the catalog: made by GNU tar, zstd, pgzip and 7z; whole, damaged, and hostile."""

from __future__ import annotations

import io
import itertools
import os
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pgzip
import pytest

from catalog.crash import VARIABLE
from catalog.records import CopyState
from tapefs.taf import survey
from tapefs.taf.records import Member
from tapefs.taf.streams import Stream
from tapefs.taf.survey import FRAME_BYTES
from tapefs.taf.tar import members_of_stream
from tests.drivers.ltfs_bench import BARCODE, UUID, make_volume
from tests.forking.client import run
from tests.taf.import_rig import Imports
from tests.taf.test_taf import KIB, SET, SUFFIXES, archive_of
from tests.taf.trees import make_source

MIB = 1024 * KIB


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_volume(tmp_path / "volume")


@pytest.fixture
def imports(tmp_path: Path, root: Path) -> Imports:
    return Imports(tmp_path, root)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "source", noise_bytes=5 * MIB)


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def noise_of(root: Path, files: dict[str, bytes], suffix: str = ".tar.gz", *, number: int = 1) -> Path:
    """Have Python's tarfile pack files, as TAF does."""
    folder = root / SET
    folder.mkdir(exist_ok=True)
    path = folder / f"backup_{SET}_20261123_0246{number:02d}{suffix}"
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name, content in files.items():
            header = tarfile.TarInfo(name)
            header.size, header.mtime = len(content), 1.5
            archive.addfile(header, io.BytesIO(content))
    if suffix == ".tar.gz":
        with pgzip.open(path, "wb", thread=1, blocksize=MIB) as packed:
            packed.write(plain.getvalue())
    elif suffix == ".tar.zst":
        pieces = [plain.getvalue()[at : at + MIB] for at in range(0, len(plain.getvalue()), MIB)]
        path.write_bytes(b"".join(_run(["zstd", "-qc"], piece) for piece in pieces))
    else:
        path.write_bytes(plain.getvalue())
    return path


def _run(command: list[str], data: bytes) -> bytes:
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


# -- whole -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_set_of_each_kind(imports: Imports, source: Path, suffix: str) -> None:
    """It shows the tree that was packed, and every byte of it comes back from the volume in the drive."""
    archive_of(imports.root, source, suffix)
    (told,) = imports.told()["sets"]
    assert (told["taf_set"], told["partial"], told["problems"], told["refused"]) == (SET, None, [], 0)
    (backup_set,) = imports.sets()
    assert (backup_set.name, backup_set.foreign_name, backup_set.tapes) == (SET, SET, (BARCODE,))
    assert (backup_set.files, backup_set.bytes, backup_set.retention_days) == (5, 5 * MIB + 5005, 0)
    tree = imports.tree(backup_set)
    assert set(tree) == {str(path.relative_to(source)) for path in source.rglob("*")}
    assert (tree["a"].mode, tree["a"].mtime_ns) == (stat.S_IFREG | 0o640, 981_173_106_000_000_000)
    assert tree["link"].target == b"sub/noise"
    assert imports.contents(backup_set) == files_below(source)


def test_sparse_files_and_hard_links(imports: Imports, tmp_path: Path) -> None:
    """A file with holes has its extents; names of one file are names of one file, in the order of the tree."""
    source = tmp_path / "source"
    (source / "z").mkdir(parents=True)
    with (source / "holes").open("wb") as file:
        file.truncate(3_000_000)
        file.seek(1_000_000)
        file.write(b"middle" * 1000)
    (source / "z" / "first").write_bytes(b"content")
    os.link(source / "z" / "first", source / "second")
    (imports.root / SET).mkdir()
    for number, form in enumerate(("pax", "gnu")):
        path = imports.root / SET / f"backup_{SET}_{number}.tar"
        subprocess.run(
            ["tar", f"--format={form}", f"--transform=s,^,{form}/,", "-Scf", path, "z/first", "holes", "second"],
            cwd=source,
            check=True,
        )
    assert imports.run().exit_code == 0
    (backup_set,) = imports.sets()
    tree = imports.tree(backup_set)
    assert {path: tree[path].nlink for path in ("pax/second", "pax/z/first")} == {"pax/second": 2, "pax/z/first": 2}
    assert tree["pax/second"].ino == tree["pax/z/first"].ino != tree["gnu/second"].ino
    found = imports.contents(backup_set)
    for form in ("pax", "gnu"):
        assert found[f"{form}/holes"] == (source / "holes").read_bytes()
        assert found[f"{form}/second"] == found[f"{form}/z/first"] == b"content"
    assert backup_set.bytes == 2 * (3_000_000 + 7)


def test_importing_again_reads_nothing_and_a_set_that_grew_is_another(
    imports: Imports, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive_of(imports.root, source, ".tar.gz")
    imports.told()
    (first,) = imports.sets()
    with monkeypatch.context() as patched:
        patched.setattr("tapefs.taf.entering.survey_archive", None)
        (again,) = imports.told()["sets"]
    assert (again["known"], again["set_id"]) == (True, first.set_id)
    assert imports.sets() == [first]
    archive_of(imports.root, source, ".tar.zst", number=2)
    (grown,) = imports.told()["sets"]
    assert not grown["known"]
    assert [each.set_id for each in imports.sets()] == [first.set_id, grown["set_id"]]
    with imports.ledger() as ledger:
        (volume,) = ledger.volumes()
        assert (volume.volume_id, volume.label, volume.foreign) == (UUID, BARCODE, "taf")
        copies = ledger.copies_on(volume.volume_id)
    assert len(copies) == 3
    assert all(one.end_block <= other.header_block for one, other in itertools.pairwise(copies))


def test_a_lost_index_is_made_anew_from_the_archives(imports: Imports, source: Path) -> None:
    """The same set, with the same numbers."""
    archive_of(imports.root, source, ".tar.gz")
    imports.told()
    (backup_set,) = imports.sets()
    index, names = imports.home.index(backup_set.set_id), imports.home.names(backup_set.set_id)
    before = imports.tree(backup_set), names.read_bytes()
    index.unlink()
    names.unlink()
    imports.told()
    assert imports.sets() == [backup_set]
    assert (imports.tree(backup_set), names.read_bytes()) == before


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.zst", ".tar"])
def test_an_archive_is_read_from_the_nearest_checkpoint(
    imports: Imports, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pgzip writes a member, zstd here a frame, for each MiB: nobody decompresses what is before."""
    monkeypatch.setattr(survey, "_STRIDE_BYTES", 3 * MIB)
    content = os.urandom(30 * MIB)
    archive = noise_of(imports.root, {"large": content, "last": b"end"}, suffix)
    imports.told()
    (backup_set,) = imports.sets()
    last = 30 * MIB // FRAME_BYTES
    before = _bytes_read()
    imports.fetch(backup_set, last, last)
    assert [frame for _, frame in imports.arrivals][-1] == last
    assert not imports.failures
    assert _bytes_read() - before < archive.stat().st_size // 2


def test_what_is_passed_over_is_staged_too(imports: Imports) -> None:
    """Of an archive without checkpoints the way to the last file leads through all others: once is enough."""
    (imports.root / SET).mkdir()
    folder = imports.root.parent / "packed"
    folder.mkdir()
    (folder / "noise").write_bytes(os.urandom(3 * FRAME_BYTES))
    subprocess.run(["tar", "-czf", imports.root / SET / f"backup_{SET}_1.tar.gz", "noise"], cwd=folder, check=True)
    imports.told()
    (backup_set,) = imports.sets()
    imports.fetch(backup_set, 3, 3)
    assert [frame for _, frame in imports.arrivals] == [0, 1, 2, 3]
    imports.arrivals.clear()
    (imports.root / SET / f"backup_{SET}_1.tar.gz").unlink()
    imports.fetch(backup_set, 0, 3)  # All is there: nothing is read from the volume.
    assert [frame for _, frame in imports.arrivals] == [0, 1, 2, 3]


def _bytes_read() -> int:
    with open("/proc/self/io", encoding="ascii") as file:
        return int(next(line for line in file if line.startswith("rchar")).split()[1])


# -- damaged ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.zst", ".tar"])
def test_a_torn_archive_gives_what_is_before_the_tear(imports: Imports, suffix: str) -> None:
    files = {f"file{number:02d}": os.urandom(MIB) for number in range(12)}
    archive = noise_of(imports.root, files, suffix)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) * 2 // 3])
    result = imports.run()
    assert result.exit_code != 0
    (backup_set,) = imports.sets()
    assert "1 of 1 archives" in backup_set.partial
    found = imports.contents(backup_set)
    assert 6 <= len(found) < 12
    assert found == {name: files[name] for name in found}
    # Not read again unasked, nor with --again as long as it is as it was.
    (told,) = imports.told(code=1)["sets"]
    assert told["known"]
    os.utime(archive, ns=(0, backup_set.finished_at_ns))
    archive.write_bytes(whole)
    assert imports.run().exit_code == 0
    assert imports.contents(imports.sets()[-1]) == files


def test_a_flipped_bit_is_found_by_verify(imports: Imports) -> None:
    files = {f"file{number}": os.urandom(FRAME_BYTES) for number in range(4)}
    archive = noise_of(imports.root, files, ".tar")
    os.utime(archive, ns=(0, 1_700_000_000_000_000_000))
    imports.told()
    (backup_set,) = imports.sets()
    (finding,) = imports.verify(backup_set)
    assert finding.is_good
    data = bytearray(archive.read_bytes())
    data[FRAME_BYTES + FRAME_BYTES // 2] ^= 1
    archive.write_bytes(data)
    os.utime(archive, ns=(0, 1_700_000_000_000_000_000))
    (finding,) = imports.verify(backup_set)
    assert (finding.frames, finding.files) == ([1], 2)
    with imports.ledger() as ledger:
        (copy,) = ledger.copies(finding.copy.segment_id)
    assert copy.state is CopyState.DAMAGED
    imports.fetch(backup_set, 0, 3)
    assert [frame for _, frame in imports.arrivals] == [0, 2, 3]
    assert len(imports.failures) == 1


def test_an_archive_that_has_changed_gives_nothing(imports: Imports, source: Path) -> None:
    """Never bytes of another file: who reads gets an error."""
    archive = archive_of(imports.root, source, ".tar")
    imports.told()
    (backup_set,) = imports.sets()
    archive.write_bytes(archive.read_bytes() + b"\0" * 512)
    imports.fetch(backup_set, 0, 1)
    assert imports.arrivals == []
    assert all("has changed since it was imported" in each for each in imports.failures)


def test_nothing_of_a_set_can_be_read(imports: Imports) -> None:
    (imports.root / SET).mkdir()
    (imports.root / SET / f"backup_{SET}_1.tar.gz").write_bytes(b"no archive at all")
    result = imports.run()
    assert result.exit_code != 0
    assert "nothing of it can be read" in result.output
    assert imports.sets() == []


# -- hostile ---------------------------------------------------------------------------------------------------------


def test_hostile_names_have_no_place_in_the_tree(imports: Imports) -> None:
    noise_of(
        imports.root,
        {
            "../above": b"1",
            "/absolute": b"2",
            "a/../../b": b"3",
            "x" * 300: b"4",
            "./fine": b"5",
            "a//b": b"6",
        },
    )
    (told,) = imports.told()["sets"]
    assert told["refused"] == 5
    (backup_set,) = imports.sets()
    assert imports.contents(backup_set) == {"fine": b"5"}


def test_numbers_and_targets_that_make_no_sense(imports: Imports) -> None:
    """A target with a NUL is not shown; a size beyond all files is damage, and costs what is behind it."""
    folder = imports.root / SET
    folder.mkdir()
    with tarfile.open(folder / f"backup_{SET}_1.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("fine"))
        for name, headers in (
            ("link", {"linkpath": "a\0b"}),
            ("huge", {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 70)}),
        ):
            header = tarfile.TarInfo(name)
            header.pax_headers = headers
            header.type = tarfile.SYMTYPE if name == "link" else tarfile.REGTYPE
            header.size = 512 if name == "huge" else 0
            archive.addfile(header, io.BytesIO(b"0\n".ljust(512, b"\0")))
        archive.addfile(tarfile.TarInfo("behind"))
    (told,) = imports.told(code=1)["sets"]
    assert "cannot be that large" in told["partial"]
    (backup_set,) = imports.sets()
    assert set(imports.tree(backup_set)) - {"link"} == {"fine"}


def test_an_archive_that_is_still_being_written(imports: Imports, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there when it was read is taken in; the next import takes all of it, as another set."""
    archive = noise_of(imports.root, {"one": b"1"}, ".tar")
    whole = archive.read_bytes()
    reading = members_of_stream

    def growing(stream: Stream) -> Iterator[Member]:
        with archive.open("ab") as file:
            file.write(b"\0" * 512)
        return reading(stream)

    with monkeypatch.context() as patched:
        patched.setattr("tapefs.taf.survey.members_of_stream", growing)
        (told,) = imports.told(code=1)["sets"]
    assert "still being written" in told["partial"]
    assert len(archive.read_bytes()) == len(whole) + 512
    (told,) = imports.told()["sets"]
    assert (told["known"], told["partial"], told["files"]) == (False, None, 1)


def test_names_that_are_taken(imports: Imports) -> None:
    """Two sources with files of one name: both are shown; the same twice only once; files give way to folders."""
    noise_of(imports.root, {"same": b"1", "name": b"one", "both": b"file"}, number=1)
    noise_of(imports.root, {"same": b"1", "name": b"two", "both/below": b"3"}, number=2)
    (told,) = imports.told()["sets"]
    assert told["renamed"] == 2
    (backup_set,) = imports.sets()
    assert imports.contents(backup_set) == {
        "same": b"1",
        "name": b"one",
        "name (2)": b"two",
        "both (2)": b"file",
        "both/below": b"3",
    }


# -- around ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["taf.archive.after", "taf.index.after", "taf.adopt.after", "taf.set.after"])
def test_killed_anywhere_the_same_command_goes_on(imports: Imports, source: Path, point: str) -> None:
    archive_of(imports.root, source, ".tar.gz")
    archive_of(imports.root, source, ".tar", set_id="2026-12_000001")
    command = ["-m", "tapefs", "--home", imports.home.path, "taf", "import", imports.root]
    killed = run(*command, env={**os.environ, VARIABLE: point}, timeout=120)
    assert killed.returncode == -9, killed.stderr
    assert imports.run().exit_code == 0
    sets = imports.sets()
    assert {each.foreign_name for each in sets} == {SET, "2026-12_000001"}
    assert len(sets) == 2
    for each in sets:
        assert imports.contents(each) == files_below(source)
    assert list((imports.home.path / "import").iterdir()) == []


def test_a_copy_of_a_volume_needs_a_name(imports: Imports, source: Path, tmp_path: Path) -> None:
    imports.root = tmp_path / "copy"
    imports.root.mkdir()
    archive_of(imports.root, source, ".tar")
    result = imports.run()
    assert result.exit_code != 0
    assert "--label" in str(result.exception)
    assert imports.run("--label", "COPY1").exit_code == 0
    assert imports.sets()[0].tapes == ("COPY1",)
