"""TAF's archives, made by GNU tar, 7z, and Python's tarfile as TAF does; whole, damaged, and hostile."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from drivers.ltfs.attributes import Place
from tapefs.cli import group
from tapefs.errors import NoSuchThing, TapefsError
from tapefs.restore.records import RestoreReport
from tapefs.taf.reading import check_archives, extract_archives
from tapefs.taf.volume import TafVolume, open_volume
from tests.drivers.ltfs_bench import make_volume
from tests.taf.trees import make_source

SET = "2026-11_000001"
SUFFIXES = [".tar.gz", ".tar.zst", ".tar", ".7z"]
KIB = 1024


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A mounted volume."""
    return make_volume(tmp_path / "volume")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "source", noise_bytes=700 * KIB)


def archive_of(root: Path, source: Path, suffix: str, *, number: int = 1, set_id: str = SET) -> Path:
    """Have a foreign program make an archive where TAF puts it."""
    folder = root / set_id
    folder.mkdir(exist_ok=True)
    path = folder / f"backup_{set_id}_20261123_0246{number:02d}{suffix}"
    command = {
        ".tar.gz": ["tar", "-czf", str(path), "."],
        ".tar.zst": ["tar", "--zstd", "--format=pax", "-cf", str(path), "."],
        ".tar": ["tar", "-cf", str(path), "."],
        ".7z": ["7z", "a", "-bd", "-snl", str(path), "."],
    }[suffix]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    return path


def extract(root: Path, target: Path, *, overwrite: bool = False) -> RestoreReport:
    volume = open_volume(root)
    return extract_archives(
        volume, volume.archives, target, overwrite=overwrite, progress=lambda _: None, note=lambda _: None
    )


def check(root: Path) -> RestoreReport:
    volume = open_volume(root)
    return check_archives(volume, volume.archives, lambda _: None, lambda _: None)


def tree(folder: Path) -> dict[str, tuple[object, ...]]:
    """Return what is below a folder: kind, mode, seconds, content."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
        seconds = 0 if path.is_symlink() else int(status.st_mtime)
        found[str(path.relative_to(folder))] = (oct(status.st_mode), seconds, content)
    return found


def run(*arguments: object) -> Result:
    return CliRunner().invoke(group, ["taf", *map(str, arguments)])


# -- whole -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_others_have_packed_comes_back(root: Path, source: Path, suffix: str, tmp_path: Path) -> None:
    archive_of(root, source, suffix)
    report = extract(root, tmp_path / "out")
    assert report.is_complete, report.troubles
    assert tree(tmp_path / "out" / SET) == tree(source)
    assert (report.files, report.symlinks) == (4, 1)
    assert report.bytes == 5 + 700 * KIB + 5000
    checked = check(root)
    assert checked.is_complete
    assert (checked.files, checked.bytes) == (report.files, report.bytes)


def test_archives_as_tafs_tarfile_writes_them(root: Path, tmp_path: Path) -> None:
    """Files without their directories, as on Windows: owner 0, mode 0666; times are fractions."""
    (root / SET).mkdir()
    with tarfile.open(root / SET / f"backup_{SET}_20261123_024651.tar.gz", "w:gz") as archive:
        for name, content in (("报告/一.txt", b"1" * 1000), ("plain.txt", b"2")):
            header = tarfile.TarInfo(name)
            header.size, header.mode, header.mtime = len(content), 0o666, 1.5
            archive.addfile(header, io.BytesIO(content))
    report = extract(root, tmp_path / "out")
    assert report.is_complete, report.troubles
    made = tmp_path / "out" / SET / "报告" / "一.txt"
    assert made.read_bytes() == b"1" * 1000
    assert made.stat().st_mtime_ns == 1_500_000_000
    assert stat.S_IMODE(made.parent.stat().st_mode) == 0o755


def test_hard_links_sparse_files_and_nanoseconds(root: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with (source / "holes").open("wb") as file:
        file.seek(3_000_000)
        file.write(b"end")
    (source / "first").write_bytes(b"content")
    os.link(source / "first", source / "second")
    os.utime(source / "first", ns=(0, 1_234_567_890_123_456_789))
    (root / SET).mkdir()
    path = root / SET / f"backup_{SET}_1.tar"
    subprocess.run(["tar", "--format=pax", "-Scf", path, "first", "holes", "second"], cwd=source, check=True)
    report = extract(root, tmp_path / "out")
    assert report.is_complete, report.troubles
    out = tmp_path / "out" / SET
    assert (out / "holes").read_bytes() == (source / "holes").read_bytes()
    assert os.path.samefile(out / "first", out / "second")
    assert (out / "first").stat().st_mtime_ns == 1_234_567_890_123_456_789
    assert report.links == 1


def test_members_of_several_compressed_streams(root: Path, source: Path, tmp_path: Path) -> None:
    """What parallel compressors write: gzip members and zstd frames, one behind the other."""
    for suffix, compress in ((".tar.gz", ["gzip", "-c"]), (".tar.zst", ["zstd", "-qc"])):
        plain = subprocess.run(["tar", "-cf", "-", "."], cwd=source, capture_output=True, check=True).stdout
        halves = [plain[:300_000], plain[300_000:]]
        (root / suffix).mkdir()
        with (root / suffix / f"backup_1{suffix}").open("wb") as file:
            for half in halves:
                file.write(subprocess.run(compress, input=half, capture_output=True, check=True).stdout)
    report = extract(root, tmp_path / "out")
    assert report.is_complete, report.troubles
    assert tree(tmp_path / "out" / ".tar.gz") == tree(tmp_path / "out" / ".tar.zst") == tree(source)


# -- the order of the tape, and what is an archive -------------------------------------------------------------------


def test_archives_come_in_the_order_of_the_tape(root: Path, source: Path) -> None:
    """By start block, not by name; those without one last."""
    blocks = {1: b"900", 2: b"30", 3: None, 4: b"4"}
    for number, block in blocks.items():
        path = archive_of(root, source, ".tar", number=number)
        if block is not None:
            os.setxattr(path, "user.ltfs.startblock", block)
            os.setxattr(path, "user.ltfs.partition", b"b")
    volume = open_volume(root)
    assert [each.place for each in volume.archives] == [Place("b", 4), Place("b", 30), Place("b", 900), None]
    assert [each.name[-6:-4] for each in volume.archives] == [b"04", b"02", b"01", b"03"]


def test_only_archives_in_folders_count(root: Path, source: Path) -> None:
    archive_of(root, source, ".tar")
    (root / "backup_loose.tar").touch()
    (root / SET / "notes.txt").touch()
    (root / SET / "backup_1.zip").touch()
    (root / SET / "backup_1.tar.gz.part").touch()
    (root / SET / "backup_link.tar").symlink_to("/etc/passwd")
    (root / "elsewhere").symlink_to(root / SET)
    assert len(open_volume(root).archives) == 1


def test_sets_are_chosen_by_name(root: Path, source: Path) -> None:
    archive_of(root, source, ".tar")
    archive_of(root, source, ".tar", set_id="2026-12_000002")
    volume = open_volume(root)
    assert {each.set_id for each in volume.of_sets(("2026-12_000002",))} == {b"2026-12_000002"}
    assert len(volume.of_sets(())) == 2
    with pytest.raises(NoSuchThing, match="2027"):
        volume.of_sets(("2027",))


# -- damage ----------------------------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


def cut_the_end(path: Path) -> None:
    """Cut between two members, or behind the last one: what simple readers take for the end."""
    if path.suffix != ".tar":
        os.truncate(path, path.stat().st_size - 3)
        return
    with tarfile.open(path) as archive:
        last = archive.getmembers()[-1]
    os.truncate(path, last.offset)


def flip(path: Path) -> None:
    """Turn a bit in the middle."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))


def replace(path: Path) -> None:
    path.write_bytes(os.urandom(5000))


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [cut, cut_the_end, flip, replace, empty], ids=lambda harm: harm.__name__)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damage_is_found_and_costs_no_other_archive(
    root: Path, source: Path, suffix: str, harm: Callable[[Path], None], tmp_path: Path
) -> None:
    if (suffix, harm) == (".tar", flip):
        pytest.skip("content in a plain .tar has no checksum")
    harm(archive_of(root, source, suffix))
    archive_of(root, source, ".tar", number=2, set_id="good")
    report = extract(root, tmp_path / "out")
    assert report.damaged == 1, report
    assert f"{SET}/backup_" in report.troubles[0].path.decode()
    assert tree(tmp_path / "out" / "good") == tree(source)
    assert check(root).damaged == 1
    # What came before the damage is whole or not there.
    out = tmp_path / "out" / SET
    for path in out.rglob("*") if out.exists() else []:
        assert not path.name.startswith(".tapefs-")
        if path.is_file():
            assert path.read_bytes() == (source / path.relative_to(out)).read_bytes()


def test_a_damaged_header_is_not_the_end(root: Path, source: Path) -> None:
    """`tarfile` by itself would stop there without a word."""
    path = archive_of(root, source, ".tar")
    with tarfile.open(path) as archive:
        third = archive.getmembers()[3].offset
    with path.open("r+b") as file:
        file.seek(third + 10)
        file.write(b"\xff\xff")
    with tarfile.open(path) as archive:
        assert len(archive.getmembers()) == 3
    report = check(root)
    assert report.damaged == 1
    assert "header is damaged" in report.troubles[0].reason


def test_an_encrypted_7z_says_so(root: Path, source: Path) -> None:
    (root / SET).mkdir()
    path = root / SET / "backup_1.7z"
    subprocess.run(["7z", "a", "-bd", "-psecret", path, "."], cwd=source, check=True, capture_output=True)
    assert "encrypted" in check(root).troubles[0].reason


def test_without_the_program_7z_it_is_said_what_to_install(
    root: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive_of(root, source, ".7z")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(TapefsError, match="install"):
        check(root)


# -- hostile archives ------------------------------------------------------------------------------------------------

HOSTILE = [
    "/etc/evil",
    "../evil",
    "a/../../evil",
    "a//b",
    "..",
    "x" * 300,
    "d/" * 40_000 + "x",
]


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: name[:12])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.LNKTYPE])
def test_names_that_want_out_stay_in(root: Path, tmp_path: Path, name: str, kind: bytes) -> None:
    header = tarfile.TarInfo(name)
    header.type, header.linkname = kind, "/etc/passwd"
    make_tar(root, [(named("first"), b"1"), (header, b""), (named("last"), b"2")])
    before = sorted(path for path in tmp_path.iterdir())
    report = extract(root, tmp_path / "out")
    assert report.failed == 1, report
    out = tmp_path / "out" / SET
    assert ((out / "first").read_bytes(), (out / "last").read_bytes()) == (b"1", b"2")
    assert sorted(path for path in tmp_path.iterdir() if path.name != "out") == before
    assert not Path("/etc/evil").exists()


def test_nothing_is_written_through_a_link_of_the_archive(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    link = tarfile.TarInfo("door")
    link.type, link.linkname = tarfile.SYMTYPE, str(outside)
    make_tar(root, [(link, b""), (named("door/evil"), b"evil"), (named("last"), b"2")])
    report = extract(root, tmp_path / "out")
    assert report.failed == 1
    assert list(outside.iterdir()) == []
    assert (tmp_path / "out" / SET / "last").exists()


def test_a_hard_link_leads_to_members_of_its_archive_only(root: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / SET).mkdir(parents=True)
    (tmp_path / "out" / SET / "mine").write_bytes(b"mine")
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.LNKTYPE, "mine"
    make_tar(root, [(link, b"")])
    report = extract(root, tmp_path / "out")
    assert report.failed == 1
    assert not (tmp_path / "out" / SET / "link").exists()


def test_a_7z_with_hostile_names_stays_in(root: Path, source: Path, tmp_path: Path) -> None:
    path = archive_of(root, source, ".7z")
    subprocess.run(["7z", "rn", "-bd", path, "a", "../../evil", "zero", "/etc/evil"], check=True, capture_output=True)
    report = extract(root, tmp_path / "out")
    assert report.failed == 2
    assert not (tmp_path / "evil").exists()
    assert not Path("/etc/evil").exists()
    assert (tmp_path / "out" / SET / "sub" / "noise").read_bytes() == (source / "sub" / "noise").read_bytes()


def test_a_header_that_wants_all_memory_is_damage(root: Path) -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 8 * 1024**3
    (root / SET).mkdir()
    (root / SET / "backup_1.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + b"x" * 2**20)
    assert "over the limit" in check(root).troubles[0].reason


def named(name: str) -> tarfile.TarInfo:
    return tarfile.TarInfo(name)


def make_tar(root: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    (root / SET).mkdir()
    with tarfile.open(root / SET / "backup_1.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for header, content in members:
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))


# -- what is there already, and the commands -------------------------------------------------------------------------


def test_what_is_there_stays_unless_it_may_be_overwritten(root: Path, source: Path, tmp_path: Path) -> None:
    archive_of(root, source, ".tar.gz")
    out = tmp_path / "out" / SET
    out.mkdir(parents=True)
    (out / "a").write_bytes(b"mine")
    report = extract(root, tmp_path / "out")
    assert (report.skipped, (out / "a").read_bytes()) == (1, b"mine")
    assert extract(root, tmp_path / "out", overwrite=True).is_complete
    assert tree(out) == tree(source)


def test_the_commands(root: Path, source: Path, tmp_path: Path) -> None:
    path = archive_of(root, source, ".tar.zst")
    os.setxattr(path, "user.ltfs.startblock", b"5")
    os.setxattr(path, "user.ltfs.partition", b"b")
    listed = run("list", root)
    assert listed.exit_code == 0
    assert path.name in listed.output
    assert "b:5" in listed.output
    assert '"start_block": 5' in run("list", root, "--json").output
    verified = run("verify", root, SET)
    assert verified.exit_code == 0
    assert "4 files" in verified.output
    assert run("extract", root, "--to", tmp_path / "out").exit_code == 0
    assert tree(tmp_path / "out" / SET) == tree(source)
    cut(path)
    assert isinstance(run("verify", root).exception, TapefsError)
    assert isinstance(run("verify", root, "nothing").exception, NoSuchThing)
    assert isinstance(run("list", tmp_path / "nowhere").exception, TapefsError)


def test_an_archive_that_is_replaced_by_something_else_is_not_read(root: Path, source: Path) -> None:
    """Between the listing and the reading."""
    path = archive_of(root, source, ".tar")
    volume: TafVolume = open_volume(root)
    path.unlink()
    os.mkfifo(path)
    report = check_archives(volume, volume.archives, lambda _: None, lambda _: None)
    assert report.damaged == 1
    assert "regular" in report.troubles[0].reason
