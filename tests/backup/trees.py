"""Source trees, and looking at what became of them. Nothing here uses the product's own readers of archives."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

from catalog.index.model import Directory, Entry
from catalog.index.reader import IndexReader
from tests.backup.rig import Rig


def odd_tree(root: Path) -> Path:
    """Make a small tree with names, modes, times and links of many kinds."""
    tree = root / "source"
    tree.mkdir()
    names = [b"plain", b"with space", b"new\nline", b"caf\xc3\xa9", b"latin-\xe9", b"n" * 255, b"-dash", b"back\\slash"]
    for number, name in enumerate(names):
        path = os.path.join(bytes(tree), name)
        with open(path, "wb") as file:
            file.write(random.Random(number).randbytes(number * 700))
        os.chmod(path, 0o400 + number)
        os.utime(path, ns=(1_600_000_000_000_000_000 + number, 1_500_000_000_123_456_789 + number))
    deep = tree
    for level in range(12):
        deep = deep / f"level-{level:02}"
        deep.mkdir()
        (deep / "file").write_text(f"level {level}\n")
    (tree / "empty").mkdir(mode=0o711)
    (tree / "link").symlink_to("plain")
    (tree / "dangling").symlink_to("t" * 1000)
    if os.geteuid() == 0:
        os.chown(tree / "plain", 12345, 54321)
        os.lchown(tree / "link", 777, 888)
    os.utime(tree / "empty", ns=(1, 987_654_321_012_345_678))
    return tree


def random_files(folder: Path, count: int, size: int, seed: int = 1) -> Path:
    """Make files that cannot be compressed."""
    folder.mkdir(parents=True, exist_ok=True)
    source = random.Random(seed)
    for number in range(count):
        (folder / f"file-{number:05}").write_bytes(source.randbytes(size))
    return folder


def lstat_fields(path: bytes) -> tuple[object, ...]:
    """Return what a backup keeps of a name: type and mode, owner, size, mtime, target."""
    status = os.lstat(path)
    is_directory = os.path.isdir(path) and not os.path.islink(path)
    size = 0 if is_directory else status.st_size
    target = os.readlink(path) if os.path.islink(path) else b""
    return status.st_mode, status.st_uid, status.st_gid, size, status.st_mtime_ns, target


def snapshot(root: Path) -> dict[bytes, tuple[object, ...]]:
    """Return the fields and the content of everything below `root`, by relative path."""
    top = bytes(root)
    found: dict[bytes, tuple[object, ...]] = {}
    for folder, directories, files in os.walk(top):
        for name in directories + files:
            path = os.path.join(folder, name)
            content = b""
            if os.path.isfile(path) and not os.path.islink(path):
                with open(path, "rb") as file:
                    content = file.read()
            found[os.path.relpath(path, top)] = (*lstat_fields(path), content)
    return found


def payloads(rig: Rig) -> list[Path]:
    """Return the payload files of all committed segments, in the order of writing."""
    found = []
    for backup_set in rig.ledger.backup_sets():
        for segment in rig.ledger.segments(backup_set.set_id):
            for copy in rig.ledger.copies(segment.segment_id):
                label = rig.ledger.volume(copy.volume_id).label
                found.append(rig.home.library / "cartridges" / label / f"{copy.header_file + 1:05}")
    return found


def extract(rig: Rig, target: Path, program: str = "tar") -> Path:
    """Unpack all payloads with `zstd -dc | tar`, as the header on tape says."""
    target.mkdir(exist_ok=True)
    for payload in payloads(rig):
        command = f"zstd -qdc {payload} | {program} --numeric-owner -xpf - -C {target}"
        subprocess.run(["bash", "-o", "pipefail", "-c", command], check=True, capture_output=True)
    return target


def entries(reader: IndexReader) -> dict[bytes, Entry]:
    """Return everything an index shows, by path."""
    found: dict[bytes, Entry] = {}

    def visit(directory: Directory, prefix: bytes) -> None:
        for _, _, entry in list(reader.list_from(directory, 0)):
            path = prefix + entry.name
            found[path] = entry
            if entry.mode & 0o170000 == 0o040000:
                visit(reader.directory(entry.offset), path + b"/")

    visit(reader.directory(0), b"")
    return found
