"""Writes a tree beneath one folder, whatever the names say and whoever else is at work there.

Directories are opened by `beneath`, which never follows a link; every name in them is made, changed and renamed
relative to such a descriptor. So nothing outside the target is ever touched, however links are planted or swapped
meanwhile: a swap makes the step fail. Directories stay open, so a file costs no walk.

Whatever is no directory is made under a temporary name, a file 0600 and exclusively, filled, given its attributes
through its descriptor (`attributes`), and only then renamed: a name never stands for half a file. A killed process can
leave files `.tapefs-*` behind. One thread.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tapefs.errors import UsageError
from tapefs.restore import attributes as attribute
from tapefs.restore.attributes import Attributes, Refused, Xattrs
from tapefs.restore.beneath import BadName, Beneath, check_name, last_error
from tapefs.restore.harmless import tame

__all__ = ["BadName", "Identity", "Made", "MadeDirectory", "NewFile", "SafeWriter", "check_name"]

_RENAME_NOREPLACE = 1
_COPY_BYTES = 1024 * 1024
_OFF_T = 1 << 63
_REPLACED = "the file that it is another name of was replaced meanwhile"
_libc = ctypes.CDLL(None, use_errno=True)


class Identity(NamedTuple):
    """Which file it is, whatever its names."""

    dev: int
    ino: int


class MadeDirectory(NamedTuple):
    """A directory as it was when the writer made or found it."""

    is_new: bool
    dev: int
    ino: int


class Made(NamedTuple):
    """Something that was made and has its name now."""

    identity: Identity
    refused: list[Refused]


class SafeWriter:
    """Writes beneath `target`. Paths are bytes relative to it, without leading slash; b"" is the target itself.

    All methods may raise OSError with the reason of the system, and BadName; overflows of absurd numbers come as
    OSError, too. What exists is replaced with `overwrite`, but for directories; else it is a FileExistsError.
    """

    def __init__(self, target: Path, *, overwrite: bool, special: bool = True) -> None:
        """Open the target and make it if it is missing. Raises UsageError if that or writing there is not possible."""
        #: May what is made give rights: set-id bits, capabilities, device nodes?
        self.special = special
        #: May existing files and links be replaced?
        self.overwrite = overwrite
        try:
            target.mkdir(parents=True, exist_ok=True)
            # The way to the target is the user's own choice: links in it are followed.
            root = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise UsageError(f"cannot restore to {target}: {error.strerror}") from error
        if not os.access(f"/proc/self/fd/{root}", os.W_OK | os.X_OK, effective_ids=True):
            os.close(root)
            raise UsageError(f"cannot write to {target}: choose another folder, or become its owner")
        self._directories = Beneath(root)
        #: Can what is made have an ACL that it got from its directory? Those that are new give none.
        self._may_inherit = attribute.inherits(root)

    def close(self) -> None:
        """Let go of all directories."""
        self._directories.close()

    def sync(self) -> None:
        """Have the file system put everything on disk. Raises OSError if it could not."""
        if _libc.syncfs(self._directories.root) != 0:
            raise last_error()

    # -- directories -------------------------------------------------------------------------------------------------

    def make_directory(self, path: bytes) -> MadeDirectory:
        """Make it, 0700, or take the one that is there. Raises OSError if something else is."""
        above, name = self._directories.above(path)
        try:
            os.mkdir(name, 0o700, dir_fd=above)
            is_new = True
        except FileExistsError:
            is_new = False
        fd = self._directories.enter(path)
        if is_new and self._may_inherit:
            attribute.remove_acls(fd)
        elif not is_new:
            self._may_inherit = self._may_inherit or attribute.inherits(fd)
        found = os.fstat(fd)
        return MadeDirectory(is_new, found.st_dev, found.st_ino)

    def finish_directory(
        self, path: bytes, made: MadeDirectory, attributes: Attributes, xattrs: Xattrs
    ) -> list[Refused]:
        """Give it its attributes, after all that goes into it; return what was refused.

        Raises OSError, also if it is not the directory any more that `make_directory` saw.
        """
        fd = self._same_directory(path, made)
        return _apply(fd, os.fstat(fd), attributes, xattrs, clean=not made.is_new, special=self.special)

    def differs(self, path: bytes, made: MadeDirectory, attributes: Attributes, xattrs: Xattrs) -> bool:
        """Tell whether an existing directory has another owner or mode, or lacks an attribute."""
        if not self.special:
            attributes, xattrs, _ = tame(attributes, xattrs)
        return attribute.differs(self._same_directory(path, made), attributes, xattrs)

    def _same_directory(self, path: bytes, made: MadeDirectory) -> int:
        fd = self._directories.directory(path)
        found = os.fstat(fd)
        if (found.st_dev, found.st_ino) != (made.dev, made.ino):
            raise OSError(errno.ESTALE, "the directory was replaced by another one meanwhile")
        return fd

    # -- everything else ---------------------------------------------------------------------------------------------

    def exists(self, path: bytes) -> bool:
        """Tell whether there is anything of that name; links are not followed."""
        above, name = self._directories.above(path)
        try:
            os.lstat(name, dir_fd=above)
        except FileNotFoundError:
            return False
        return True

    def new_file(self, path: bytes) -> NewFile:
        """Begin a regular file; finish or discard it before the next one is begun."""
        above, name = self._directories.above(path)
        return NewFile(above, name, overwrite=self.overwrite, clean=self._may_inherit, special=self.special)

    def make_symlink(self, path: bytes, points_to: bytes, attributes: Attributes, xattrs: Xattrs) -> Made:
        """Make a symbolic link."""
        if b"\0" in points_to:
            raise BadName("a link to a name with NUL in it")
        above, name = self._directories.above(path)
        with self._renamed(above, name) as temporary:
            os.symlink(points_to, temporary, dir_fd=above)
            return self._finish_node(above, temporary, stat.S_IFLNK, 0, attributes, xattrs)

    def make_node(self, path: bytes, rdev: int, attributes: Attributes, xattrs: Xattrs) -> Made:
        """Make a fifo or a device node. Raises PermissionError for a device without the right to make them."""
        kind = stat.S_IFMT(attributes.mode)
        device = rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0
        above, name = self._directories.above(path)
        with self._renamed(above, name) as temporary:
            try:
                os.mknod(temporary, kind | 0o600, device, dir_fd=above)
            except OverflowError as error:
                raise OSError(errno.EOVERFLOW, f"{device} is no number of a device") from error
            return self._finish_node(above, temporary, kind, device, attributes, xattrs)

    def make_link(self, first: bytes, identity: Identity, path: bytes) -> None:
        """Give the file of the name `first` another one. Raises OSError, also if it is another file meanwhile."""
        first_above, first_name = self._directories.above(first)
        # Looking for the second directory may close the first.
        first_above = os.dup(first_above)
        try:
            above, name = self._directories.above(path)
            with self._renamed(above, name) as temporary:
                os.link(first_name, temporary, src_dir_fd=first_above, dst_dir_fd=above, follow_symlinks=False)
                found = os.lstat(temporary, dir_fd=above)
                if (found.st_dev, found.st_ino) != identity:
                    raise OSError(errno.ESTALE, _REPLACED)
        finally:
            os.close(first_above)

    def copy_file(self, first: bytes, identity: Identity, path: bytes, attributes: Attributes, xattrs: Xattrs) -> Made:
        """Make a copy of a regular file that was restored, for file systems that cannot link it."""
        first_above, first_name = self._directories.above(first)
        source = os.open(first_name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=first_above)
        try:
            found = os.fstat(source)
            if (found.st_dev, found.st_ino) != identity or not stat.S_ISREG(found.st_mode):
                raise OSError(errno.ESTALE, _REPLACED)
            copy = self.new_file(path)
            try:
                for offset, length in _runs(source, found.st_size):
                    _copy(source, copy, offset, length)
            except BaseException:
                copy.discard()
                raise
            return copy.finish(found.st_size, attributes, xattrs)
        finally:
            os.close(source)

    @contextmanager
    def _renamed(self, above: int, name: bytes) -> Iterator[bytes]:
        """Yield a temporary name in the directory; what is made there gets its own name at the end."""
        temporary = _temporary_name()
        try:
            yield temporary
            _rename(above, temporary, name, overwrite=self.overwrite)
        finally:
            # Also behind a rename: one between two names of a file does nothing.
            _remove(above, temporary)

    def _finish_node(
        self, above: int, name: bytes, kind: int, device: int, attributes: Attributes, xattrs: Xattrs
    ) -> Made:
        """Set the attributes through a descriptor: the name could be somebody else's file by now."""
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=above)
        try:
            found = os.fstat(fd)
            if stat.S_IFMT(found.st_mode) != kind or found.st_rdev != device:
                raise OSError(errno.ESTALE, "it was replaced by something else meanwhile")
            clean = self._may_inherit and kind != stat.S_IFLNK
            refused = _apply(f"/proc/self/fd/{fd}", found, attributes, xattrs, clean=clean, special=self.special)
            return Made(Identity(found.st_dev, found.st_ino), refused)
        finally:
            os.close(fd)


class NewFile:
    """A regular file that does not have its name yet."""

    def __init__(self, above: int, name: bytes, *, overwrite: bool, clean: bool, special: bool) -> None:
        self._above = above
        self._name = name
        self._overwrite = overwrite
        self._clean = clean
        self._special = special
        self._temporary = _temporary_name()
        #: Its length so far.
        self._length = 0
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        self._fd = os.open(self._temporary, flags, 0o600, dir_fd=above)

    def write_at(self, offset: int, content: bytes | memoryview) -> None:
        """Write at a place of the file; what is never written is a hole and reads as zeros."""
        rest = memoryview(content)
        if offset + len(rest) >= _OFF_T:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        while rest:
            written = os.pwrite(self._fd, rest, offset)
            rest = rest[written:]
            offset += written
        self._length = max(self._length, offset)

    def cut(self, length: int) -> None:
        """Drop everything from `length` on, or go on with a hole up to there."""
        if length >= _OFF_T:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        if length != self._length:
            os.ftruncate(self._fd, length)
            self._length = length

    def finish(self, size: int, attributes: Attributes, xattrs: Xattrs) -> Made:
        """Give it its length, attributes and name. Raises FileExistsError if there is one that must stay."""
        try:
            self.cut(size)
            found = os.fstat(self._fd)
            refused = _apply(self._fd, found, attributes, xattrs, clean=self._clean, special=self._special)
            fd, self._fd = self._fd, -1
            os.close(fd)
            _rename(self._above, self._temporary, self._name, overwrite=self._overwrite)
        except BaseException:
            self.discard()
            raise
        return Made(Identity(found.st_dev, found.st_ino), refused)

    def discard(self) -> None:
        """Remove it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        _remove(self._above, self._temporary)


def _runs(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield place and length of what is no hole."""
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end - start


def _copy(source: int, copy: NewFile, offset: int, length: int) -> None:
    end = offset + length
    while offset < end:
        piece = os.pread(source, min(_COPY_BYTES, end - offset), offset)
        if not piece:
            raise OSError(errno.EIO, "the file that it is another name of was cut short meanwhile")
        copy.write_at(offset, piece)
        offset += len(piece)


def _temporary_name() -> bytes:
    # Half the time of secrets.token_hex, for every file.
    return b".tapefs-" + os.urandom(8).hex().encode()


def _rename(above: int, old: bytes, new: bytes, *, overwrite: bool) -> None:
    if overwrite:
        os.rename(old, new, src_dir_fd=above, dst_dir_fd=above)
        return
    if _libc.renameat2(above, old, above, new, _RENAME_NOREPLACE) == 0:
        return
    error = last_error()
    if error.errno not in (errno.EINVAL, errno.ENOSYS):
        raise error
    # The file system does not know the flag: a link does not replace anything either.
    os.link(old, new, src_dir_fd=above, dst_dir_fd=above, follow_symlinks=False)
    os.unlink(old, dir_fd=above)


def _remove(above: int, name: bytes) -> None:
    try:
        os.unlink(name, dir_fd=above)
    except FileNotFoundError:
        return


def _apply(
    where: attribute.Where, found: os.stat_result, attributes: Attributes, xattrs: Xattrs, *, clean: bool, special: bool
) -> list[Refused]:
    """Set everything, or all that gives no rights; return what was refused or left off."""
    left_off: list[Refused] = []
    if not special:
        attributes, xattrs, left_off = tame(attributes, xattrs)
    return left_off + attribute.apply(where, found, attributes, xattrs, clean=clean)
