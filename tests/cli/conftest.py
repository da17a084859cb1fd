"""Running commands in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tapefs.cli import run


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    def one_line(self) -> str:
        """Return the error, having checked that it is one line in the agreed form."""
        assert self.err.endswith("\n")
        assert self.err.count("\n") == 1, self.err
        assert self.err.startswith("tapefs: ")
        return self.err.removeprefix("tapefs: ").rstrip("\n")


@pytest.fixture
def tapefs(capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[..., Outcome]:
    """Run a command line."""

    def call(*arguments: str) -> Outcome:
        capfdbinary.readouterr()
        code = run(list(arguments))
        captured = capfdbinary.readouterr()
        return Outcome(code, captured.out.decode(errors="surrogateescape"), captured.err.decode())

    return call
