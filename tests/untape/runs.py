"""Runs `scripts/untape.py` as its user does, beside the product."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from catalog.ids import SetId
from tests.backup.rig import Rig

SCRIPT = Path(__file__).parents[2] / "scripts/untape.py"


@dataclass(frozen=True)
class Run:
    """How it ended."""

    code: int
    out: str
    #: What it told beside its output.
    told: str


def untape(*arguments: str | Path, answers: str = "") -> Run:
    """Run a command with nothing of the product in reach; `answers` is what the user types."""
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", SCRIPT, *arguments],
        input=answers.encode(),
        capture_output=True,
        timeout=300,
        env={"PATH": os.environ["PATH"], "TMPDIR": os.environ.get("TMPDIR", "/tmp")},
    )
    told = done.stderr.decode()
    assert "Traceback" not in told, told
    return Run(done.returncode, done.stdout.decode(), told)


class Talk:
    """A command that asks; ended at the latest with the block."""

    def __init__(self, *arguments: str | Path) -> None:
        command = ["timeout", "60", sys.executable, "-I", "-u", SCRIPT, *arguments]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=subprocess.DEVNULL, stderr=pipe, bufsize=0)
        self.code: int | None = None

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stderr):
            assert pipe is not None
            pipe.close()

    def until(self, words: bytes) -> str:
        """Return what it tells up to some words; without any, up to its end."""
        assert self._process.stderr is not None
        told = b""
        while not words or not told.rstrip(b"\n").endswith(words.rstrip()):
            piece = self._process.stderr.read(1)
            if not piece:
                assert not words, told.decode()
                self.code = self._process.wait(timeout=60)
                break
            told += piece
        return told.decode()

    def answer(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")


def cartridges(rig: Rig) -> list[Path]:
    """Return the folders of all tapes that something was written to."""
    folders = sorted((rig.home.library / "cartridges").iterdir())
    return [folder for folder in folders if (folder / "00002").exists()]


def tape_files(rig: Rig, set_id: SetId, number: int) -> list[Path]:
    """Return HEADER, PAYLOAD and TRAILER of a segment, each a file of a virtual cartridge."""
    segment = rig.ledger.segments(set_id)[number]
    (copy,) = rig.ledger.copies(segment.segment_id)
    folder = rig.home.library / "cartridges" / rig.ledger.volume(copy.volume_id).label
    return [folder / f"{copy.header_file + behind:05}" for behind in range(3)]


def flip(path: Path, place: int) -> None:
    """Change one byte; a negative place counts from the end."""
    content = bytearray(path.read_bytes())
    content[place] ^= 0x40
    path.write_bytes(content)
