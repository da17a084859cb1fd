"""Local trailers from payloads alone, for segments whose TRAILER is gone. Drive's thread."""

from __future__ import annotations

from collections.abc import Iterable

from tapefs.errors import BadStructure
from tapefs.format.records import End, Header
from tapefs.home import Home


def take_payload(home: Home, header: Header, blocks: Iterable[bytes | memoryview]) -> tuple[End, int]:
    """Make the local trailer of a segment from its payload; return its last line and its length."""
    raise BadStructure(f"payloads of codec {header.codec} cannot be read yet")
