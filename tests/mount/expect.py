"""Expecting an errno."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def fails_with(*numbers: int) -> Iterator[None]:
    """The block must raise OSError with one of these errno values."""
    found = None
    try:
        yield
    except OSError as error:
        found = error.errno
    names = [errno.errorcode.get(number, number) for number in numbers]
    assert found in numbers, f"errno {found and errno.errorcode.get(found)} instead of {names}"
