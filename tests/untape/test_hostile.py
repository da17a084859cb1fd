"""A tape that somebody has made to do harm: nothing is written outside the target, and nothing crashes."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.format.examples import INSTALLATION, JOB, SEGMENT, SET, VOLUME
from tests.untape.runs import Run, untape

CONTENT = b"evil"
FILE = stat.S_IFREG | 0o644
FOLDER = stat.S_IFDIR | 0o755


def structure(kind: str, **said: Any) -> bytes:
    text = f"TAPEFS {kind} 1.0\nby hand\n\n{json.dumps({'format': '1.0', **said})}\n".encode()
    return text + b"blake2b-128 " + hashlib.blake2b(text, digest_size=16).hexdigest().encode() + b"\n"


def named(name: bytes) -> dict[str, str]:
    return {"name_b64": base64.b64encode(name).decode()}


def directory(n: int, parent: int, name: bytes, mode: int = FOLDER) -> dict[str, Any]:
    return {"t": "d", "n": n, "p": parent, **named(name), "mode": mode, "uid": 0, "gid": 0, "mtime": 1}


def member(d: int, name: bytes, **more: Any) -> dict[str, Any]:
    digest = base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()
    line = {"t": "m", "d": d, **named(name), "mode": FILE, "uid": 0, "gid": 0, "size": len(CONTENT), "mtime": 1}
    return {**line, "nlink": 1, "dev": 1, "ino": 1, "at": 0, "sha256": digest, **more}


class Tape:
    """A dumped tape with one set of one segment, whose payload is only CONTENT."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.put(0, structure("LABEL", volume=VOLUME, installation=INSTALLATION, label="EVIL", block_size=262144))
        self.put(1, structure("SET LABEL", volume=VOLUME, volume_set="x", sequence=1))
        self.header()
        self.put(3, CONTENT)

    def put(self, number: int, content: bytes) -> None:
        (self.folder / f"{number:05}").write_bytes(content)

    def header(self, **more: Any) -> None:
        said = {"segment": SEGMENT, "number": 0, "set": SET, "set_number": 1, "type": "full", "job": JOB}
        self.put(2, structure("HEADER", **{**said, "volume": VOLUME, "codec": "tar", "block_size": 262144, **more}))

    def lines(self, *lines: Any) -> None:
        """Make TRAILER and SET INDEX of some lines, with a root in front."""
        members = sum(isinstance(line, dict) and line["t"] == "m" for line in lines)
        frame = {"t": "b", "at": 0, "stored": len(CONTENT), "plain": len(CONTENT), "sum": ""}
        end = {"t": "end", "segment": SEGMENT, "number": 0, "payload_sha256": "", "payload_bytes": len(CONTENT)}
        end |= {"plain_bytes": len(CONTENT), "members": members, "frames": 1}
        self.compress(4, [directory(0, 0, b""), *lines, frame, end])
        head = {"t": "index", "format": "1.0", "set": SET, "final": True}
        self.compress(5, [head, {"t": "index_end", "lines": 1}])

    def compress(self, number: int, lines: list[Any]) -> None:
        text = b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)
        self.put(number, subprocess.run(["zstd", "-q"], input=text, capture_output=True, check=True).stdout)

    def restore(self, target: Path, *options: str) -> Run:
        return untape("restore", SET, self.folder, *options, "--to", target)


@pytest.fixture
def tape(tmp_path: Path) -> Tape:
    return Tape(tmp_path / "tape")


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder beside the target that nothing may touch."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "precious").write_bytes(b"precious")
    before = folder.stat(), (folder / "precious").stat()
    yield folder
    assert os.listdir(folder) == ["precious"]
    assert (folder / "precious").read_bytes() == b"precious"
    after = folder.stat(), (folder / "precious").stat()
    for one, other in zip(before, after, strict=True):
        assert (one.st_mode, one.st_mtime_ns, one.st_ctime_ns) == (other.st_mode, other.st_mtime_ns, other.st_ctime_ns)


def test_the_tape_by_hand_is_good(tape: Tape, tmp_path: Path) -> None:
    """Without this the others would prove nothing."""
    tape.lines(directory(1, 0, b"folder"), member(1, b"file"))
    done = tape.restore(tmp_path / "out")
    assert (done.code, (tmp_path / "out/folder/file").read_bytes()) == (0, CONTENT), done.told


NAMES = [b"", b".", b"..", b"/etc", b"../outside/new", b"a/../../outside/new", b"a\0b", b"x" * 256]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name[:20]))
@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_names_that_want_out(tape: Tape, tmp_path: Path, outside: Path, name: bytes, kind: str) -> None:
    """Such a segment is not believed at all."""
    line = directory(2, 0, name) if kind == "directory" else member(0, name)
    if kind == "link":
        line |= {"mode": stat.S_IFLNK | 0o777, "target": "/etc", "sha256": ""}
    tape.lines(directory(1, 0, b"folder"), member(1, b"file"), line)
    done = tape.restore(tmp_path / "out")
    assert done.code == 1
    assert "is no name of a file" in done.told
    assert not any((tmp_path / "out").iterdir())


def test_links_on_the_way(tape: Tape, tmp_path: Path, outside: Path) -> None:
    """A link that is in the target, one that the tape itself brings, and one in place of a file."""
    target = tmp_path / "out"
    target.mkdir()
    (target / "planted").symlink_to(outside)
    (target / "file").symlink_to(outside / "new")
    link = {"mode": stat.S_IFLNK | 0o777, "target": str(outside), "sha256": ""}
    tape.lines(
        directory(1, 0, b"planted"),
        member(1, b"a"),
        member(0, b"both", **link),
        directory(2, 0, b"both"),
        member(2, b"b", mtime=2),
        member(0, b"file", mtime=3),
    )
    done = tape.restore(target)
    assert done.code == 1
    assert "/planted: the directory cannot be made" in done.told
    assert "/planted/a" in done.told
    assert "/file: exists and was left alone" in done.told
    assert (target / "both/b").read_bytes() == CONTENT
    assert not (target / "both").is_symlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can do that")
def test_devices_and_set_id_bits(tape: Tape, tmp_path: Path) -> None:
    """Only with a word; a device that is one then cannot be opened on its way."""
    tape.lines(
        member(0, b"shell", mode=FILE | 0o6755),
        member(0, b"disk", mode=stat.S_IFBLK | 0o666, rdev=os.makedev(8, 0), sha256="", size=0),
    )
    done = tape.restore(tmp_path / "out")
    assert (done.code, sorted(os.listdir(tmp_path / "out"))) == (0, ["shell"])
    assert stat.S_IMODE((tmp_path / "out/shell").stat().st_mode) == 0o755
    assert tape.restore(tmp_path / "special", "--special").code == 0
    assert stat.S_IMODE((tmp_path / "special/shell").stat().st_mode) == 0o6755
    assert stat.S_ISBLK((tmp_path / "special/disk").stat().st_mode)


WRONG_LINES = {
    "a circle of directories": [directory(1, 2, b"a"), directory(2, 1, b"b"), member(2, b"c")],
    "a directory in itself": [directory(1, 1, b"a"), member(1, b"b")],
    "a directory that is none": [directory(1, 0, b"a", FILE), member(1, b"b")],
    "content outside the frames": [member(0, b"a", at=1 << 62)],
    "a size that no disk has": [member(0, b"a", size=(1 << 63) - 1)],
    "a number that is none": [member(0, b"a", size="4")],
    "a negative size": [member(0, b"a", size=-1)],
    "runs that go back": [member(0, b"a", flags=16, size=100, data=[[50, 4], [10, 4]])],
    "a run that is none": [member(0, b"a", flags=16, size=100, data=[[50]])],
    "a run beyond the file": [member(0, b"a", flags=16, size=100, data=[[99, 4]])],
    "no JSON": [b"nonsense\n"],
    "a list": [b"[1]\n"],
    "deep JSON": [b'{"t":' + b"[" * 100_000 + b"\n"],
    "a mode of nothing": [member(0, b"a", mode=0o644)],
    "an attribute that is none": [member(0, b"a", xattrs=[["user.a"]])],
    "a time that is none": [member(0, b"a", mtime="now")],
    "a time far away": [member(0, b"a", mtime=1 << 100)],
    "a frame that is huge": [{"t": "b", "at": 0, "stored": 1, "plain": 1 << 40, "sum": ""}],
    "an owner that is none": [member(0, b"a", uid="root")],
    "a link without target": [member(0, b"a", mode=stat.S_IFLNK | 0o777)],
    "removed that is a number": [{"t": "l", "n": 0, "removed": 5}],
    "directories of text": [{"t": "l", "n": 0, "directories": ["x"]}],
    "a name of half a character": [b'{"t":"m","d":0,"name":"\\ud800","mode":33188,"size":0}\n'],
    "a base that is not there": [member(0, b"a", as_base=True)],
}


@pytest.mark.parametrize("what", WRONG_LINES)
def test_lines_that_are_wrong(tape: Tape, tmp_path: Path, outside: Path, what: str) -> None:
    """It is told, and the program neither breaks nor hangs; `files` can stand them, too."""
    tape.lines(*WRONG_LINES[what])
    done = tape.restore(tmp_path / "out")
    is_harmless = what in ("a circle of directories", "a directory in itself")
    assert done.code == (0 if is_harmless else 1), done.told
    assert untape("files", SET, tape.folder).code in (0, 1)
    assert untape("check", tape.folder).code == 1


def test_a_bomb(tape: Tape, tmp_path: Path) -> None:
    """A TRAILER of some kilobytes that would fill every memory; and a frame that is not what it says."""
    bomb = subprocess.run("head -c 3G /dev/zero | zstd -q", shell=True, capture_output=True, check=True).stdout
    tape.lines(member(0, b"a"))
    tape.put(4, bomb)
    done = tape.restore(tmp_path / "out")
    assert done.code == 1
    assert "far too much" in done.told or "too long" in done.told
    tape.header(codec="zstd")
    tape.put(3, bomb[:60_000])
    frame = {"t": "b", "at": 0, "stored": 60_000, "plain": 4, "sum": ""}
    end = {"t": "end", "segment": SEGMENT, "number": 0, "plain_bytes": 4, "members": 1, "frames": 1}
    tape.compress(4, [directory(0, 0, b""), member(0, b"a"), frame, end])
    done = tape.restore(tmp_path / "more")
    assert done.code == 1
    assert "lost: /a" in done.told


def test_what_is_not_known_is_left_alone(tape: Tape, tmp_path: Path) -> None:
    """Another major version, another codec, an encryption."""
    tape.lines(member(0, b"a"))
    tape.header(codec="future")
    done = tape.restore(tmp_path / "out")
    assert (done.code, "the codec 'future', which this program does not know" in done.told) == (1, True)
    tape.header(encryption="rot13")
    done = tape.restore(tmp_path / "out")
    assert (done.code, "the encryption 'rot13', which this program does not know" in done.told) == (1, True)
    tape.header(encryption="age")
    done = tape.restore(tmp_path / "out")
    assert (done.code, "give the file with the key as --identity FILE" in done.told) == (1, True)
    (tape.folder / "00000").write_bytes(structure("LABEL", volume=VOLUME).replace(b"LABEL 1.0", b"LABEL 2.0"))
    assert untape("list", tape.folder).code == 1
