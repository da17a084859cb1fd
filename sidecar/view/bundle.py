"""A folder of the archive as one download: `.tar.zst` or `.zip`, made while it is sent. Trio; one thread packs.

Files come in the order of the tape. What the caller may not read is refused before a byte is sent. Set-id bits and
devices are for admins; zip has files, folders and symbolic links only.
"""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from typing import IO, Any, cast

import structlog
import trio
import zstandard
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from catalog.errors import CatalogError
from sidecar.http.callers import Caller, Role
from sidecar.http.listeners import CONNECTION, Connection
from sidecar.view.content import CHUNK_BYTES, attachment, send_soon, shown, until_gone
from sidecar.view.files import Files, Item
from tapefs.errors import TapefsError, UsageError
from tapefs.mount.content import OpenFile

TAR, ZIP = "tar.zst", "zip"
FORMATS = (TAR, ZIP)
_TYPES = {TAR: "application/zstd", ZIP: "application/zip"}
#: All are looked at before the first byte is sent, and kept meanwhile: 50 MB.
MOST_ENTRIES = 100_000
_ENTRIES = 200
_LEVEL = 3
_QUICK_DEFLATE = 1
#: Zip knows no earlier and no later year.
_FIRST_YEAR, _LAST_YEAR = 1980, 2107
_NS_PER_S = 1_000_000_000
_TAR_TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}
#: So many downloads are packed at a time.
_packers = trio.CapacityLimiter(4)

log = structlog.get_logger(__name__)


class Bundle:
    """What goes into a download."""

    def __init__(self, files: Files, top: Item, caller: Caller, kind: str) -> None:
        self._files = files
        self._top = top
        self._caller = caller
        self._kind = kind
        self._items: list[Item] = []
        self._open: OpenFile | None = None

    async def look(self) -> list[Item]:
        """Find everything that goes in; return the regular files. Raises Forbidden, UsageError, CatalogError."""
        self._items, folders = [self._top], [self._top] if self._top.is_directory else []
        while folders:
            folder = folders.pop()
            inner: list[Item] = []
            start: int | None = 0
            while start is not None:
                await self._files.refresh()
                start = self._look_at_some(folder, start, inner)
                await trio.lowlevel.checkpoint()
            folders.extend(reversed(inner))
        return [item for item in self._items if item.is_file]

    def _look_at_some(self, folder: Item, start: int, inner: list[Item]) -> int | None:
        """Note entries of a folder, subfolders in `inner`; return where it goes on."""
        for count, (position, item) in enumerate(self._files.children(folder, self._caller, start), 1):
            self._files.require_readable(item, self._caller)
            self._items.append(item)
            if item.is_directory:
                inner.append(item)
            if len(self._items) > MOST_ENTRIES:
                raise UsageError(f"more than {MOST_ENTRIES:,} entries: download the folders in it one by one")
            if count == _ENTRIES:
                return position
        return None

    def answer(self) -> Response:
        """Return the answer that packs and sends; `look` must have been called."""
        base = self._top.name or b"archive"
        return _BundleAnswer(
            self._pack, self.release, _TYPES[self._kind], attachment(base + b"." + self._kind.encode())
        )

    def _pack(self, sink: io.RawIOBase) -> None:
        """Write the archive; in a thread."""
        stream = cast("IO[bytes]", sink)
        if self._kind == ZIP:
            with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=_QUICK_DEFLATE) as packed:
                for item in self._items:
                    self._add_to_zip(packed, item)
            return
        compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
        with (
            compressor.stream_writer(stream, closefd=False) as compressed,
            tarfile.open(fileobj=compressed, mode="w|", format=tarfile.PAX_FORMAT, bufsize=CHUNK_BYTES) as tar,
        ):
            for item in self._items:
                self._add_to_tar(tar, item)

    def _add_to_tar(self, tar: tarfile.TarFile, item: Item) -> None:
        kind = _TAR_TYPES.get(stat.S_IFMT(item.mode))
        if kind is None:
            return
        header = tarfile.TarInfo(self._inner_name(item).decode("utf-8", "surrogateescape"))
        header.type = kind
        header.mode = stat.S_IMODE(item.mode) if self._caller.role is Role.ADMIN else item.mode & 0o1777
        header.uid, header.gid = item.uid, item.gid
        header.mtime = item.mtime_ns // _NS_PER_S
        seconds, rest_ns = divmod(item.mtime_ns, _NS_PER_S)
        if rest_ns and seconds >= 0:
            header.pax_headers = {"mtime": f"{seconds}.{rest_ns:09d}"}
        header.linkname = item.target.decode("utf-8", "surrogateescape")
        if not item.is_file:
            tar.addfile(header)
            return
        header.size = item.size_bytes
        tar.addfile(header, self._opened(item))

    def _add_to_zip(self, packed: zipfile.ZipFile, item: Item) -> None:
        if not (item.is_file or item.is_directory or stat.S_ISLNK(item.mode)):
            return
        name = shown(self._inner_name(item)) + ("/" if item.is_directory else "")
        header = zipfile.ZipInfo(name, _zip_date(item.mtime_ns))
        header.compress_type = zipfile.ZIP_DEFLATED if item.is_file else zipfile.ZIP_STORED
        header.external_attr = (item.mode & 0o171777) << 16
        if not item.is_file:
            packed.writestr(header, b"" if item.is_directory else item.target)
            return
        content = self._opened(item)
        with packed.open(header, "w", force_zip64=item.size_bytes >= 2**31) as entry:
            while piece := content.read(CHUNK_BYTES):
                entry.write(piece)

    def _opened(self, item: Item) -> _Reader:
        """Return a file's content; the one before it is let go. In the packing thread."""
        trio.from_thread.run_sync(self.release)
        self._open = trio.from_thread.run_sync(self._files.open, item, self._caller)
        return _Reader(self._open, item.size_bytes)

    def release(self) -> None:
        """Let go of the file that is open."""
        file, self._open = self._open, None
        if file is not None:
            file.release()

    def _inner_name(self, item: Item) -> bytes:
        """Return its name in the archive, which begins with the folder's own."""
        parent = self._top.path.rpartition(b"/")[0]
        name = item.path[len(parent) :].lstrip(b"/") if parent else item.path
        return name or b"archive"


class _Reader:
    """A file of the archive as a stream, for the packing thread. Raises as OpenFile.read."""

    def __init__(self, file: OpenFile, size_bytes: int) -> None:
        self._file = file
        self._size_bytes = size_bytes
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        left = self._size_bytes - self._at
        wanted = left if size < 0 else min(size, left)
        piece = trio.from_thread.run(self._file.read, self._at, wanted) if wanted else b""
        self._at += len(piece)
        return piece


class _Sink(io.RawIOBase):
    """Where the packing thread writes: pieces for the connection."""

    def __init__(self, inlet: trio.MemorySendChannel[bytes]) -> None:
        self._inlet = inlet
        self._parts: list[bytes] = []
        self._size_bytes = 0

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, piece: Any) -> int:
        """Send what has come together, when it is enough."""
        part = bytes(piece)
        self._parts.append(part)
        self._size_bytes += len(part)
        if self._size_bytes >= CHUNK_BYTES:
            self.send()
        return len(part)

    def send(self) -> None:
        """Send the rest."""
        piece, self._parts, self._size_bytes = b"".join(self._parts), [], 0
        if piece:
            trio.from_thread.run(self._inlet.send, piece)


class _BundleAnswer(Response):
    """Packs in a thread and sends. The end is missing where something went wrong: a connection that breaks says so."""

    def __init__(
        self, pack: Callable[[io.RawIOBase], None], release: Callable[[], None], media_type: str, disposition: str
    ) -> None:
        super().__init__(media_type=media_type, headers={"Content-Disposition": disposition})
        del self.headers["content-length"]
        self._pack = pack
        self._release = release
        self._failure: Exception | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the end, or until the client has gone."""
        connection: Connection = scope[CONNECTION]
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        inlet, outlet = trio.open_memory_channel[bytes](1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(until_gone, receive, nursery.cancel_scope)
            nursery.start_soon(self._run, inlet)
            async for piece in outlet:
                await send_soon(send, connection, piece)
            nursery.cancel_scope.cancel()
        if self._failure is None:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            log.warning("a download ended early", error=str(self._failure))
            connection.cut()

    async def _run(self, inlet: trio.MemorySendChannel[bytes]) -> None:
        try:
            async with inlet:
                await trio.to_thread.run_sync(self._work, inlet, limiter=_packers)
        finally:
            # Not in the thread: one that is cancelled reaches nobody here any more.
            self._release()

    def _work(self, inlet: trio.MemorySendChannel[bytes]) -> None:
        sink = _Sink(inlet)
        try:
            self._pack(sink)
            sink.send()
        except (TapefsError, CatalogError, OSError) as error:
            self._failure = error


def _zip_date(at_ns: int) -> tuple[int, int, int, int, int, int]:
    at = datetime.fromtimestamp(min(max(at_ns // _NS_PER_S, 0), 4_354_819_199), UTC)
    if at.year < _FIRST_YEAR:
        return (_FIRST_YEAR, 1, 1, 0, 0, 0)
    return (min(at.year, _LAST_YEAR), at.month, at.day, at.hour, at.minute, at.second)
