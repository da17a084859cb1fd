"""What a program writes, as it comes, and whether it has ended well. Blocking."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import IO

from tapefs.errors import SourceError

_PIECE_BYTES = 1024 * 1024
#: A program that does not end when it is told to is killed after this.
_END_S = 10.0


def pieces_of(fd: int, shown: str) -> Iterator[bytes]:
    """Yield what can be read, to its end. Raises SourceError."""
    while piece := _read(fd, shown):
        yield piece


def _read(fd: int, shown: str) -> bytes:
    try:
        return os.read(fd, _PIECE_BYTES)
    except OSError as error:
        raise SourceError(f"{shown} cannot be read: {error.strerror}") from error


def output_of(
    command: Sequence[bytes | str], shown: str, secrets: Mapping[str, str] | None = None, words: IO[bytes] | None = None
) -> Iterator[bytes]:
    """Yield what the command writes to its standard output. Raises SourceError when it fails, behind its last byte.

    `secrets` go into its environment: others see the command line of every process. `words` gets its standard error,
    which is ours else.
    """
    try:
        environment = {**os.environ, **(secrets or {})}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=words, env=environment)
    except OSError as error:
        raise SourceError(f"{shown} cannot be run: {error.strerror}") from error
    output = process.stdout
    if output is None:
        raise AssertionError("the command was started with a pipe")
    try:
        yield from pieces_of(output.fileno(), shown)
        code = process.wait()
    finally:
        output.close()
        _end(process)
    if code:
        raise SourceError(f"{shown} {_how(code)}: nothing of it is kept")


def _how(code: int) -> str:
    return f"failed with exit code {code}" if code > 0 else f"was ended by signal {-code}"


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
