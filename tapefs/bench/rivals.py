"""Other programs that mount archives, made from the same trees: those that are installed. Blocking."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tapefs.bench.stand import mounted


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive of another program, ready to be mounted."""

    name: str
    #: Mounts in the foreground at the folder that is put behind it.
    command: tuple[str, ...]
    #: Where the root of the file system that was archived is in the mount.
    root: str


@dataclass(frozen=True, slots=True)
class Rival:
    """A program that makes archives and mounts them."""

    name: str
    #: Without these it cannot take part.
    programs: tuple[str, ...]
    #: Makes an archive of the sources in a folder.
    make: Callable[[Path, Sequence[Path]], Archive]

    def missing(self) -> list[str]:
        """Return the programs that are not installed."""
        return [program for program in self.programs if shutil.which(program) is None]


def _run(command: Sequence[str | Path], **variables: str) -> None:
    subprocess.run(
        list(map(str, command)),
        env={**os.environ, **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )


def _squashfs(folder: Path, sources: Sequence[Path]) -> Archive:
    image = folder / "image.squashfs"
    options = ["-no-strip", "-comp", "zstd", "-Xcompression-level", "3", "-quiet", "-no-progress"]
    _run(["mksquashfs", *sources, image, *options])
    return Archive("squashfuse_ll", ("squashfuse_ll", "-f", str(image)), "")


def _restic(folder: Path, sources: Sequence[Path]) -> Archive:
    password = folder / "password"
    password.write_text("bench")
    options = [f"--repo={folder / 'restic'}", f"--password-file={password}", f"--cache-dir={folder / 'restic-cache'}"]
    _run(["restic", *options, "init"])
    _run(["restic", *options, "backup", "--one-file-system", *sources])
    return Archive("restic", ("restic", *options, "mount"), "snapshots/latest")


def _borg(folder: Path, sources: Sequence[Path]) -> Archive:
    # Its cache and keys would go to the home folder.
    base = {"BORG_BASE_DIR": str(folder / "borg-base")}
    repository = folder / "borg"
    _run(["borg", "init", "-e", "none", repository], **base)
    _run(["borg", "create", "--one-file-system", "-C", "zstd,3", f"{repository}::bench", *sources], **base)
    command = ("env", f"BORG_BASE_DIR={folder / 'borg-base'}", "borg", "mount", "-f", f"{repository}::bench")
    return Archive("borg", command, "")


def _ratarmount(folder: Path, sources: Sequence[Path]) -> Archive:
    archive = folder / "archive.tar"
    _run(["tar", "--one-file-system", "-cf", archive, "-C", "/", *(source.relative_to("/") for source in sources)])
    command = ("ratarmount", "-f", "--index-file", str(folder / "archive.index"), str(archive))
    made = Archive("ratarmount", command, "")
    # The first mount makes the index.
    with mounted_rival(made, folder / "mnt"):
        pass
    return made


RIVALS = (
    Rival("squashfuse_ll", ("mksquashfs", "squashfuse_ll"), _squashfs),
    Rival("restic", ("restic",), _restic),
    Rival("borg", ("borg",), _borg),
    Rival("ratarmount", ("ratarmount",), _ratarmount),
)


def made(rivals: Sequence[Rival], folder: Path, sources: Sequence[Path]) -> list[Archive]:
    """Make the archives of those that are installed; say which are not, and which fail."""
    archives = []
    for rival in rivals:
        if missing := rival.missing():
            print(f"  {rival.name} does not take part: {', '.join(missing)} not installed")
            continue
        place = folder / rival.name
        place.mkdir()
        try:
            archives.append(rival.make(place, sources))
        except (subprocess.CalledProcessError, RuntimeError) as error:
            print(f"  {rival.name} does not take part: {error}")
    return archives


@contextmanager
def mounted_rival(archive: Archive, folder: Path) -> Iterator[tuple[Path, int]]:
    """Mount it; yield where its root is, and the process id. Unmounted behind the block, which ends the program."""
    with mounted([*archive.command, str(folder)], folder) as pid:
        try:
            yield folder / archive.root, pid
        finally:
            subprocess.run(unmount(folder), check=True)


def unmount(folder: Path) -> list[str]:
    """Return the command that unmounts a FUSE file system: root needs no helper."""
    return ["umount", str(folder)] if os.geteuid() == 0 else ["fusermount3", "-u", str(folder)]


def drop_caches() -> bool:
    """Have the kernel forget pages, names and inodes; tell whether it could be asked to: only root may."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return False
    return True
