"""What tapes of format 1.0 hold, byte for byte. The files in golden/ stay readable for ever: never make them anew."""

from __future__ import annotations

import base64
import os
import subprocess
from hashlib import sha256
from pathlib import Path

from tapefs.codecs import codec
from tapefs.format.frames import frame_checksum, read_seek_table
from tapefs.format.lines import read_lines
from tapefs.format.records import End, FrameLine, IndexEnd, IndexHead, IndexLine, Member, TrailerLine, name_of
from tapefs.format.structures import read_header, read_label, read_set_label
from tests.format import examples, tree

GOLDEN = Path(__file__).parent / "golden"
PAYLOAD = GOLDEN / "payload.tar.zst"


def _trailer() -> list[TrailerLine]:
    with (GOLDEN / "trailer.jsonl.zst").open("rb") as file:
        return list(read_lines(file, TrailerLine))


def _frames() -> list[FrameLine]:
    return [line for line in _trailer() if isinstance(line, FrameLine)]


def test_label_set_label_and_header() -> None:
    assert read_label((GOLDEN / "label").read_bytes()) == examples.LABEL
    assert read_set_label((GOLDEN / "set_label").read_bytes()) == examples.SET_LABEL
    assert read_header((GOLDEN / "header").read_bytes()) == examples.HEADER


def test_trailer() -> None:
    *lines, end = _trailer()
    assert lines == tree.trailer_without_end(3072, 6144, 16896, _frames())
    payload = PAYLOAD.read_bytes()
    assert end == End(
        segment=examples.SEGMENT,
        number=3,
        payload_sha256=sha256(payload).digest(),
        payload_bytes=len(payload),
        payload_blocks=1,
        plain_bytes=17920,
        members=3,
        frames=3,
    )
    assert isinstance(end, End)
    assert sum(frame.plain for frame in _frames()) == end.plain_bytes


def test_set_index() -> None:
    with (GOLDEN / "index.jsonl.zst").open("rb") as file:
        head, segment, *trailer, end = read_lines(file, IndexLine)
    assert head == examples.INDEX_HEAD
    assert segment == examples.INDEX_SEGMENT
    assert trailer == _trailer()
    assert end == IndexEnd(index=examples.INDEX, lines=len(trailer) + 2)
    assert isinstance(head, IndexHead)


def test_every_frame_decodes_alone_and_holds_what_the_trailer_says() -> None:
    payload = PAYLOAD.read_bytes()
    plain = b""
    for frame in _frames():
        stored = payload[frame.at : frame.at + frame.stored]
        assert frame_checksum(stored) == frame.sum
        plain += codec("zstd").decode(stored, frame.plain)
    assert read_seek_table(payload) == [(frame.stored, frame.plain) for frame in _frames()]
    contents = [tree.HELLO, tree.NUMBERS]
    for member in _trailer():
        if isinstance(member, Member) and member.sha256:
            content = plain[member.at : member.at + member.size]
            assert content == contents.pop(0)
            assert sha256(content).digest() == member.sha256
    assert not contents


def test_names_of_any_bytes_come_back() -> None:
    assert [name_of(line) for line in _trailer() if isinstance(line, Member)] == [b"hello", tree.LATIN_NAME, b"zlink"]


def test_the_payload_restores_with_the_commands_of_the_label(tmp_path: Path) -> None:
    restore = "zstd -dc | tar --xattrs --xattrs-include='*' --acls --numeric-owner -xpf -"
    with PAYLOAD.open("rb") as payload:
        done = subprocess.run(restore, shell=True, stdin=payload, cwd=tmp_path, capture_output=True, check=True)
    assert done.stderr == b""
    root = os.fsencode(tmp_path)
    for path, content in tree.FILES.items():
        assert Path(os.fsdecode(root + b"/" + path)).read_bytes() == content
        assert os.lstat(root + b"/" + path).st_mtime_ns == tree.MTIME_NS
    assert os.readlink(root + b"/" + tree.LINK) == tree.TARGET


def test_one_file_comes_out_with_the_commands_of_docs_format() -> None:
    """From its frame on, without what stands before it."""
    frames = _frames()
    (member,) = (line for line in _trailer() if isinstance(line, Member) and line.name_b64 == tree.LATIN_NAME)
    frame, start = frames[1], frames[0].plain
    assert start <= member.at < start + frame.plain
    command = f"tail -c +{frame.at + 1} | zstd -dc | tail -c +{member.at - start + 1} | head -c {member.size}"
    done = subprocess.run(command, shell=True, input=PAYLOAD.read_bytes(), capture_output=True, check=True)
    assert done.stdout == tree.NUMBERS


def test_the_payload_sum_comes_out_with_the_commands_of_docs_format() -> None:
    command = "sha256sum | cut -c-64 | tr a-f A-F | basenc --base16 -d | base64"
    done = subprocess.run(command, shell=True, input=PAYLOAD.read_bytes(), capture_output=True, check=True)
    assert base64.b64decode(done.stdout) == _trailer()[-1].payload_sha256
