"""Links, devices, holes, attributes and ACLs in tar members, as GNU tar and bsdtar restore them."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from pathlib import Path
from struct import pack

import pytest

from tapefs.format.acl import acl_text
from tapefs.format.tar import (
    ATTRIBUTES_BYTES,
    END_OF_ARCHIVE,
    TarKind,
    attribute_records,
    member_header,
    padding,
    sparse_map,
)
from tests.format.test_tar import LATIN, MTIME_NS, TOOLS

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="devices, owners and trusted attributes need root")
OWNER = {"uid": os.geteuid(), "gid": os.getegid()}
Runs = list[tuple[int, int]]


def extract(tool: str, archive: bytes, folder: Path) -> Path:
    """Unpack, which must go without a word, and return the folder."""
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    done = subprocess.run(TOOLS[tool], input=archive + END_OF_ARCHIVE, cwd=folder, env=environment, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    return folder


def header(path: bytes, size: int = 0, mode: int = 0o640, **fields: object) -> bytes:
    found = member_header(path, mode, OWNER["uid"], OWNER["gid"], size, MTIME_NS, **fields)  # type: ignore[arg-type]
    assert len(found) % 512 == 0
    return found


def regular(path: bytes, content: bytes, **fields: object) -> bytes:
    return header(path, len(content), **fields) + content + bytes(padding(len(content)))


def sparse(path: bytes, runs: Runs, size: int, **fields: object) -> bytes:
    """A member whose data is as long as the runs say; each run has bytes of its own."""
    body = sparse_map(runs, size) + b"".join(data_of(run) for run in runs)
    return regular(path, body, sparse_bytes=size, **fields)


def data_of(run: tuple[int, int]) -> bytes:
    return bytes([run[0] // 4096 % 255 + 1]) * run[1]


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("name", [b"first", b"d/" * 60 + b"f", LATIN * 30, b"p" * 255, LATIN + b"/x", b"/srv/abs"])
def test_links_to_an_earlier_member(tool: str, name: bytes, tmp_path: Path) -> None:
    """Whatever its name: long, not UTF-8, or both."""
    archive = regular(name, b"content") + b"".join(
        header(link, kind=TarKind.HARDLINK, target=name) for link in (b"second", b"deep/" * 30 + b"third")
    )
    out = bytes(extract(tool, archive, tmp_path / "out"))
    first = os.stat(out + b"/" + name.lstrip(b"/"))
    assert first.st_nlink == 3
    assert first.st_mtime_ns == MTIME_NS
    for link in (b"/second", b"/" + b"deep/" * 30 + b"third"):
        assert os.stat(out + link).st_ino == first.st_ino


@needs_root
@pytest.mark.parametrize("tool", TOOLS)
def test_devices_and_fifos_and_links_to_them(tool: str, tmp_path: Path) -> None:
    """Also of the largest numbers the kernel has; and links to a link."""
    devices = [
        (b"null", TarKind.CHARACTER_DEVICE, os.makedev(1, 3)),
        (b"largest", TarKind.CHARACTER_DEVICE, os.makedev(2**12 - 1, 2**20 - 1)),
        (b"whiteout", TarKind.CHARACTER_DEVICE, 0),
        (b"disk", TarKind.BLOCK_DEVICE, os.makedev(8, 17)),
        (b"fifo", TarKind.FIFO, 0),
    ]
    archive = b"".join(header(name, kind=kind, rdev=rdev) for name, kind, rdev in devices)
    archive += header(b"link", mode=0o777, kind=TarKind.SYMLINK, target=b"../no where")
    names = [name for name, _, _ in devices] + [b"link"]
    archive += b"".join(header(name + b"2", kind=TarKind.HARDLINK, target=name) for name in names)
    out = bytes(extract(tool, archive, tmp_path / "out"))
    for name, kind, rdev in devices:
        status = os.lstat(out + b"/" + name)
        assert (stat.S_IMODE(status.st_mode), status.st_rdev, status.st_mtime_ns) == (0o640, rdev, MTIME_NS)
        is_kind = {
            TarKind.CHARACTER_DEVICE: stat.S_ISCHR,
            TarKind.BLOCK_DEVICE: stat.S_ISBLK,
            TarKind.FIFO: stat.S_ISFIFO,
        }[kind]
        assert is_kind(status.st_mode)
    for name in names:
        assert os.lstat(out + b"/" + name + b"2").st_ino == os.lstat(out + b"/" + name).st_ino
    assert os.readlink(out + b"/link2") == b"../no where"


def test_device_numbers_of_another_kernel_are_not_cut() -> None:
    """Beyond what fits ustar they stand in records, as libarchive reads them."""
    found = header(b"x", kind=TarKind.BLOCK_DEVICE, rdev=os.makedev(2**30, 5))
    assert b" SCHILY.devmajor=1073741824\n" in found
    assert b" SCHILY.devminor=5\n" in found


KIB = 1024
HOLES: dict[str, tuple[Runs, int]] = {
    "begin": ([(400 * KIB, 8 * KIB)], 408 * KIB),
    "end": ([(0, 4 * KIB)], 1000 * KIB + 1),
    "middle": ([(0, 64 * KIB), (512 * KIB, 64 * KIB), (2**33, 4 * KIB)], 2**33 + 4 * KIB),
    "all": ([], 123_456_789),
    "odd": ([(0, 4 * KIB), (40 * KIB, 1)], 40 * KIB + 1),
    "many": ([(place * 8 * KIB, 4 * KIB) for place in range(4096)], 32 * KIB * KIB),
    "late": ([(2**42, 4 * KIB)], 2**42 + 8 * KIB),
}


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("name", [b"plain", b"dir/" * 30 + b"x", LATIN, LATIN * 40, b"p" * 255], ids=range(5))
@pytest.mark.parametrize("which", HOLES)
def test_holes_stay_holes(tool: str, name: bytes, which: str, tmp_path: Path) -> None:
    """The file has its length, its data in its places, and no more blocks than its data; a neighbour is not harmed."""
    runs, size = HOLES[which]
    archive = sparse(name, runs, size) + regular(b"behind", b"it")
    out = extract(tool, archive, tmp_path / "out")
    with open(bytes(out) + b"/" + name, "rb") as file:
        status = os.fstat(file.fileno())
        assert (status.st_size, status.st_mtime_ns) == (size, MTIME_NS)
        stored = sum(length + 4095 for _, length in runs)
        assert status.st_blocks * 512 <= stored + 64 * KIB
        for place, length in runs:
            file.seek(place)
            assert file.read(length) == data_of((place, length))
        ends = [0, *map(sum, runs)]
        for end, start in zip(ends, [*(place for place, _ in runs), size], strict=True):
            file.seek(end)
            assert file.read(min(start - end, KIB)).strip(b"\0") == b""
    assert (out / "behind").read_bytes() == b"it"
    names = {
        os.path.relpath(os.path.join(top, each), bytes(out)) for top, _, found in os.walk(bytes(out)) for each in found
    }
    assert names == {name, b"behind"}


def test_what_is_sparse_is_so_for_python_too() -> None:
    """A third opinion on map and records."""
    runs, size = HOLES["middle"]
    with tarfile.open(fileobj=io.BytesIO(sparse(b"a/b", runs, size) + END_OF_ARCHIVE)) as archive:
        (member,) = archive.getmembers()
        assert (member.name, member.size, member.sparse) == ("a/b", size, runs)


XATTRS = [
    (b"user.colour", b"r\0e\nd="),
    (b"user.empty", b""),
    (b"user.caf\xc3\xa9", b"\xff\xfe" * 500),
]
ROOT_XATTRS = [
    (b"trusted.mark", b"t"),
    (b"security.capability", bytes.fromhex("0100000200200000000000000000000000000000")),
]


@needs_root
@pytest.mark.parametrize("tool", TOOLS)
def test_extended_attributes(tool: str, tmp_path: Path) -> None:
    """Of files, directories, links and devices: what the kernel allows on each."""
    member_kinds = {
        b"file": (TarKind.REGULAR, XATTRS + ROOT_XATTRS),
        b"dir": (TarKind.DIRECTORY, XATTRS + ROOT_XATTRS[:1]),
        b"link": (TarKind.SYMLINK, ROOT_XATTRS[:1]),
        b"fifo": (TarKind.FIFO, ROOT_XATTRS[:1]),
        b"null": (TarKind.CHARACTER_DEVICE, ROOT_XATTRS[:1]),
    }
    archive = b"".join(
        header(
            name,
            kind=kind,
            target=b"x" if kind is TarKind.SYMLINK else b"",
            extra=attribute_records(xattrs),
        )
        for name, (kind, xattrs) in member_kinds.items()
    )
    out = bytes(extract(tool, archive, tmp_path / "out"))
    for name, (_, xattrs) in member_kinds.items():
        path = out + b"/" + name
        names = os.listxattr(path, follow_symlinks=False)
        found = [(os.fsencode(each), os.getxattr(path, each, follow_symlinks=False)) for each in names]
        assert sorted(found) == sorted(xattrs)


def test_odd_attribute_names(tmp_path: Path) -> None:
    """Signs that end a keyword are written as GNU tar writes them; libarchive does not undo that."""
    xattrs = [(b"user.a=b%c", b"1"), (b"user.\xff\x01 x", b"2")]
    archive = header(b"file", extra=attribute_records(xattrs))
    out = extract("tar", archive, tmp_path / "tar")
    assert sorted((os.fsencode(name), os.getxattr(out / "file", name)) for name in os.listxattr(out / "file")) == xattrs
    out = extract("bsdtar", archive, tmp_path / "bsdtar")
    assert "user.a%3Db%25c" in os.listxattr(out / "file")


@pytest.mark.parametrize("tool", TOOLS)
def test_many_attributes_at_once(tool: str, tmp_path: Path) -> None:
    """As many as are allowed do not keep a reader from what follows; the filesystem below may refuse most of them."""
    xattrs = [(b"user.a%04d" % number, bytes(1000)) for number in range(ATTRIBUTES_BYTES // 1010)]
    archive = header(b"file", extra=attribute_records(xattrs)) + regular(b"behind", b"it")
    (tmp_path / "out").mkdir()
    subprocess.run(TOOLS[tool], input=archive + END_OF_ARCHIVE, cwd=tmp_path / "out", capture_output=True, check=False)
    assert (tmp_path / "out/behind").read_bytes() == b"it"


def acl(*entries: tuple[int, int, int]) -> bytes:
    return b"\x02\0\0\0" + b"".join(pack("<HHI", *entry) for entry in entries)


NOBODY = 2**32 - 1
ACCESS = acl((1, 6, NOBODY), (2, 4, 54_321), (2, 7, 2**31 - 1), (4, 4, NOBODY), (8, 6, 77_777), (16, 7, NOBODY),
             (32, 0, NOBODY))  # fmt: skip
DEFAULT = acl((1, 7, NOBODY), (2, 5, 54_321), (4, 5, NOBODY), (16, 5, NOBODY), (32, 1, NOBODY))


@pytest.mark.parametrize("tool", TOOLS)
def test_acls(tool: str, tmp_path: Path) -> None:
    """The kernel holds the very bytes again; what is in a directory inherits nothing from its default ACL."""
    access = attribute_records([(b"system.posix_acl_access", ACCESS)])
    default = attribute_records([(b"system.posix_acl_default", DEFAULT)])
    archive = b"".join(
        [
            header(b"dir", mode=0o755, kind=TarKind.DIRECTORY, extra=default),
            regular(b"dir/plain", b"x"),
            header(b"dir/sub", mode=0o700, kind=TarKind.DIRECTORY),
            regular(b"file", b"y", mode=0o670, extra=access),
            header(b"both", mode=0o670, kind=TarKind.DIRECTORY, extra=access + default),
        ]
    )
    out = extract(tool, archive, tmp_path / "out")
    assert os.getxattr(out / "file", "system.posix_acl_access") == ACCESS
    assert os.getxattr(out / "both", "system.posix_acl_access") == ACCESS
    assert os.getxattr(out / "both", "system.posix_acl_default") == DEFAULT
    assert os.getxattr(out / "dir", "system.posix_acl_default") == DEFAULT
    assert [os.listxattr(out / name) for name in ("dir/plain", "dir/sub")] == [[], []]
    assert os.listxattr(out / "dir") == ["system.posix_acl_default"]
    shown = subprocess.run(["getfacl", "-cnp", out / "file"], capture_output=True, check=True).stdout
    assert shown.split(b"\n")[:-2] == [line.split(b"\t")[0] for line in acl_text(ACCESS).split(b"\n")[:-1]]


def test_acls_of_very_high_ids(tmp_path: Path) -> None:
    """libarchive counts them with 31 bits; GNU tar takes all there are."""
    value = acl((1, 6, NOBODY), (2, 7, 2**32 - 2), (4, 4, NOBODY), (16, 7, NOBODY), (32, 0, NOBODY))
    archive = header(b"file", mode=0o670, extra=attribute_records([(b"system.posix_acl_access", value)]))
    out = extract("tar", archive, tmp_path / "out")
    assert os.getxattr(out / "file", "system.posix_acl_access") == value


@pytest.mark.parametrize(
    "value",
    [b"", b"\x01\0\0\0", ACCESS[:-1], acl((3, 1, 0)), acl((1, 8, 0))],
    ids=["empty", "version", "cut", "tag", "permissions"],
)
def test_what_is_no_acl_is_refused(value: bytes) -> None:
    with pytest.raises(ValueError, match="it "):
        acl_text(value)


@pytest.mark.parametrize("tool", TOOLS)
def test_sizes_to_8_eib(tool: str) -> None:
    """In headers of plain files and of files with holes."""
    listing = [tool, "-tvf", "-"]
    huge = 2**63 - 512
    found = subprocess.run(listing, input=header(b"huge", huge), capture_output=True).stdout
    assert str(huge).encode() in found
    huge = 2**63 - 1
    runs = [(huge - 10, 10)]
    found = subprocess.run(listing, input=sparse(b"huge", runs, huge) + END_OF_ARCHIVE, capture_output=True).stdout
    assert str(huge).encode() in found
