"""Mode pages: what a device lets initiators see and set. Pure; belongs to its server, under its lock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from drivers.vtl.commands import Command, Done
from drivers.vtl.sense import (
    INVALID_FIELD_IN_CDB,
    PARAMETER_LIST_LENGTH,
    SAVING_NOT_SUPPORTED,
    refuse,
    refuse_parameter,
)

ALL_PAGES = 0x3F
_ALL_SUBPAGES = 0xFF
_CURRENT, _CHANGEABLE, _DEFAULT, _SAVED = range(4)


@dataclass(frozen=True, slots=True)
class ModePage:
    """One page: how to read it, and which bits may be changed."""

    number: int
    #: The page behind its two bytes of header, as it is now.
    read: Callable[[], bytes]
    default: bytes
    #: Bits that MODE SELECT may change; as long as the page.
    changeable: bytes
    #: Takes the page behind its header, checked against `changeable`.
    write: Callable[[bytes], None]


def fixed_page(number: int, text: str) -> ModePage:
    """Return a page that nobody changes, from its bytes behind the header in hexadecimal."""
    data = bytes.fromhex(text)

    def refuse_change(page: bytes) -> None:
        raise AssertionError(f"mode page {number:02x}h has no bits to change, but {page.hex()} passed the check")

    return ModePage(number, lambda: data, data, bytes(len(data)), refuse_change)


@dataclass(frozen=True, slots=True)
class ModeHeader:
    """What stands before the pages."""

    medium_type: int = 0
    #: Device-specific parameter: write protection, buffered mode.
    specific: int = 0
    block_descriptor: bytes = b""


class Modes:
    """MODE SENSE and MODE SELECT over a table of pages."""

    def __init__(
        self,
        pages: list[ModePage],
        header: Callable[[], ModeHeader],
        select_header: Callable[[int, bytes], bool],
    ) -> None:
        """`select_header` takes the specific byte and the block descriptor (or b""), and tells if something changed."""
        self._pages = {each.number: each for each in pages}
        self._header = header
        self._select_header = select_header

    # -- MODE SENSE ----------------------------------------------------------------------------------------------

    def sense_6(self, command: Command) -> Done:
        """MODE SENSE(6)."""
        header, pages = self._sense(command)
        body = header.block_descriptor + pages
        if len(body) + 3 > 255:
            raise refuse(INVALID_FIELD_IN_CDB, 2)
        head = bytes([len(body) + 3, header.medium_type, header.specific, len(header.block_descriptor)])
        return command.give(head + body, command.cdb[4])

    def sense_10(self, command: Command) -> Done:
        """MODE SENSE(10)."""
        header, pages = self._sense(command)
        body = header.block_descriptor + pages
        head = (len(body) + 6).to_bytes(2, "big") + bytes([header.medium_type, header.specific, 0, 0])
        return command.give(head + len(header.block_descriptor).to_bytes(2, "big") + body, command.number(7, 2))

    def _sense(self, command: Command) -> tuple[ModeHeader, bytes]:
        control, number, subpage = command.cdb[2] >> 6, command.cdb[2] & 0x3F, command.cdb[3]
        if control == _SAVED:
            raise refuse(SAVING_NOT_SUPPORTED)
        if subpage not in (0, _ALL_SUBPAGES):
            raise refuse(INVALID_FIELD_IN_CDB, 3)
        if number not in self._pages and number not in (0, ALL_PAGES):
            raise refuse(INVALID_FIELD_IN_CDB, 2)
        chosen = [each for each in sorted(self._pages) if number in (each, ALL_PAGES)]
        pages = b"".join(self._page(self._pages[each], control) for each in chosen)
        header = self._header()
        if command.cdb[1] & 0x08:
            header = ModeHeader(header.medium_type, header.specific)
        return header, pages

    @staticmethod
    def _page(page: ModePage, control: int) -> bytes:
        data = {_CURRENT: page.read(), _CHANGEABLE: page.changeable, _DEFAULT: page.default}[control]
        return bytes([page.number, len(data)]) + data

    # -- MODE SELECT ---------------------------------------------------------------------------------------------

    def select_6(self, command: Command) -> bool:
        """MODE SELECT(6); tell whether something changed."""
        return self._select(command, command.parameters(command.cdb[4]), header_bytes=4)

    def select_10(self, command: Command) -> bool:
        """MODE SELECT(10); tell whether something changed."""
        return self._select(command, command.parameters(command.number(7, 2)), header_bytes=8)

    def _select(self, command: Command, data: bytes, *, header_bytes: int) -> bool:
        if command.cdb[1] & 0x01:
            raise refuse(INVALID_FIELD_IN_CDB, 1)
        if not data:
            return False
        if len(data) < header_bytes:
            raise refuse(PARAMETER_LIST_LENGTH)
        specific = data[2] if header_bytes == 4 else data[3]
        length = data[3] if header_bytes == 4 else int.from_bytes(data[6:8], "big")
        first = header_bytes + length
        if length not in (0, 8) or (header_bytes == 8 and data[4] & 1):
            raise refuse_parameter(3 if header_bytes == 4 else 6)
        if len(data) < first:
            raise refuse(PARAMETER_LIST_LENGTH)
        # All is checked before anything changes.
        wanted = self._parse(data, first)
        changed = self._select_header(specific, data[header_bytes:first])
        for page, new in wanted:
            if new != page.read():
                page.write(new)
                changed = True
        return changed

    def _parse(self, data: bytes, first: int) -> list[tuple[ModePage, bytes]]:
        wanted, at = [], first
        while at < len(data):
            page = self._pages.get(data[at] & 0x3F)
            if page is None or data[at] & 0x40:
                raise refuse_parameter(at)
            if at + 2 > len(data) or data[at + 1] != len(page.changeable):
                raise refuse_parameter(min(at + 1, len(data) - 1))
            new = data[at + 2 : at + 2 + data[at + 1]]
            if len(new) < data[at + 1]:
                raise refuse(PARAMETER_LIST_LENGTH)
            old = page.read()
            for number, mask in enumerate(page.changeable):
                if (old[number] ^ new[number]) & ~mask:
                    raise refuse_parameter(at + 2 + number)
            wanted.append((page, new))
            at += 2 + len(new)
        return wanted
