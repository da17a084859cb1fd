"""Commands for tape drives, as bytes: SPC for every device, SSC for tapes. Pure; any thread.

One function per command, named as the standard names it. Numbers that do not fit their field are ValueErrors.
The changer's commands are in `robot_cdb.py`, persistent reservations in `reservations.py`.
"""

from __future__ import annotations

from enum import IntEnum

MAX_24 = 2**24 - 1


class Op(IntEnum):
    """Operation codes, as REPORT SUPPORTED OPERATION CODES lists them."""

    TEST_UNIT_READY = 0x00
    REWIND = 0x01
    REQUEST_SENSE = 0x03
    READ_BLOCK_LIMITS = 0x05
    INITIALIZE_ELEMENT_STATUS = 0x07
    READ_6 = 0x08
    WRITE_6 = 0x0A
    WRITE_FILEMARKS_6 = 0x10
    SPACE_6 = 0x11
    INQUIRY = 0x12
    MODE_SELECT_6 = 0x15
    ERASE_6 = 0x19
    MODE_SENSE_6 = 0x1A
    LOAD_UNLOAD = 0x1B
    PREVENT_ALLOW = 0x1E
    #: LOCATE(10) on a tape drive, POSITION TO ELEMENT on a changer.
    LOCATE_10 = 0x2B
    READ_POSITION = 0x34
    LOG_SENSE = 0x4D
    MODE_SELECT_10 = 0x55
    MODE_SENSE_10 = 0x5A
    PERSISTENT_RESERVE_IN = 0x5E
    PERSISTENT_RESERVE_OUT = 0x5F
    WRITE_FILEMARKS_16 = 0x80
    READ_ATTRIBUTE = 0x8C
    WRITE_ATTRIBUTE = 0x8D
    SPACE_16 = 0x91
    LOCATE_16 = 0x92
    ERASE_16 = 0x93
    SECURITY_PROTOCOL_IN = 0xA2
    MAINTENANCE_IN = 0xA3
    MAINTENANCE_OUT = 0xA4
    MOVE_MEDIUM = 0xA5
    EXCHANGE_MEDIUM = 0xA6
    SECURITY_PROTOCOL_OUT = 0xB5
    READ_ELEMENT_STATUS = 0xB8


class Space(IntEnum):
    """What SPACE goes over."""

    BLOCKS = 0
    FILEMARKS = 1
    END_OF_DATA = 3


class PageControl(IntEnum):
    """Which values of a mode page are meant; for log pages 1 is what has been counted."""

    CURRENT = 0
    CHANGEABLE = 1
    DEFAULT = 2
    SAVED = 3


#: Log pages: the counted values.
CUMULATIVE = 1
#: REPORT SUPPORTED OPERATION CODES is MAINTENANCE IN with this service action.
REPORT_SUPPORTED_OPCODES = 0x0C


def field(value: int, size_bytes: int) -> bytes:
    """Return an unsigned number of a CDB. Raises ValueError when it does not fit."""
    if not 0 <= value < 1 << 8 * size_bytes:
        raise ValueError(f"{value} does not fit into {size_bytes} bytes of a command")
    return value.to_bytes(size_bytes, "big")


def signed_field(value: int, size_bytes: int) -> bytes:
    """Return a signed number of a CDB. Raises ValueError when it does not fit."""
    limit = 1 << 8 * size_bytes - 1
    if not -limit <= value < limit:
        raise ValueError(f"{value} does not fit into {size_bytes} signed bytes of a command")
    return value.to_bytes(size_bytes, "big", signed=True)


# -- every device ----------------------------------------------------------------------------------------------------


def test_unit_ready() -> bytes:
    """TEST UNIT READY."""
    return bytes([Op.TEST_UNIT_READY, 0, 0, 0, 0, 0])


def request_sense(allocation_bytes: int = 252, *, descriptor: bool = False) -> bytes:
    """REQUEST SENSE."""
    return bytes([Op.REQUEST_SENSE, descriptor, 0, 0]) + field(allocation_bytes, 1) + b"\0"


def inquiry(allocation_bytes: int, *, page: int | None = None) -> bytes:
    """INQUIRY, standard data or a page of vital product data."""
    return bytes([Op.INQUIRY, page is not None]) + field(page or 0, 1) + field(allocation_bytes, 2) + b"\0"


def mode_sense_6(page: int, allocation_bytes: int, control: PageControl = PageControl.CURRENT) -> bytes:
    """MODE SENSE(6), with block descriptor."""
    return bytes([Op.MODE_SENSE_6, 0, control << 6 | page, 0]) + field(allocation_bytes, 1) + b"\0"


def mode_sense_10(
    page: int, allocation_bytes: int, control: PageControl = PageControl.CURRENT, *, subpage: int = 0
) -> bytes:
    """MODE SENSE(10), with block descriptor."""
    return bytes([Op.MODE_SENSE_10, 0, control << 6 | page, subpage, 0, 0, 0]) + field(allocation_bytes, 2) + b"\0"


def mode_select_6(parameter_bytes: int) -> bytes:
    """MODE SELECT(6), pages as the standard defines them, not saved."""
    return bytes([Op.MODE_SELECT_6, 0x10, 0, 0]) + field(parameter_bytes, 1) + b"\0"


def mode_select_10(parameter_bytes: int) -> bytes:
    """MODE SELECT(10), pages as the standard defines them, not saved."""
    return bytes([Op.MODE_SELECT_10, 0x10, 0, 0, 0, 0, 0]) + field(parameter_bytes, 2) + b"\0"


def log_sense(page: int, allocation_bytes: int, *, parameter: int = 0) -> bytes:
    """LOG SENSE of counted values, from one parameter on."""
    head = bytes([Op.LOG_SENSE, 0, CUMULATIVE << 6 | page, 0, 0])
    return head + field(parameter, 2) + field(allocation_bytes, 2) + b"\0"


def prevent_allow(*, prevent: bool) -> bytes:
    """PREVENT ALLOW MEDIUM REMOVAL."""
    return bytes([Op.PREVENT_ALLOW, 0, 0, 0, prevent, 0])


def report_supported_opcodes(allocation_bytes: int, *, timeouts: bool = True) -> bytes:
    """REPORT SUPPORTED OPERATION CODES: all of them, with their timeouts."""
    head = bytes([Op.MAINTENANCE_IN, REPORT_SUPPORTED_OPCODES, timeouts << 7, 0, 0, 0])
    return head + field(allocation_bytes, 4) + bytes(2)


def read_attribute(allocation_bytes: int, *, first: int = 0, partition: int = 0) -> bytes:
    """READ ATTRIBUTE: values of the cartridge's memory from attribute `first` on."""
    head = bytes([Op.READ_ATTRIBUTE, 0, 0, 0, 0, 0, 0]) + field(partition, 1)
    return head + field(first, 2) + field(allocation_bytes, 4) + bytes(2)


def security_protocol_in(protocol: int, page: int, allocation_bytes: int) -> bytes:
    """SECURITY PROTOCOL IN, of which tape data encryption is protocol 20h."""
    head = bytes([Op.SECURITY_PROTOCOL_IN]) + field(protocol, 1) + field(page, 2)
    return head + bytes(2) + field(allocation_bytes, 4) + bytes(2)


def security_protocol_out(protocol: int, page: int, parameter_bytes: int) -> bytes:
    """SECURITY PROTOCOL OUT."""
    head = bytes([Op.SECURITY_PROTOCOL_OUT]) + field(protocol, 1) + field(page, 2)
    return head + bytes(2) + field(parameter_bytes, 4) + bytes(2)


# -- tapes -----------------------------------------------------------------------------------------------------------


def read_block_limits() -> bytes:
    """READ BLOCK LIMITS."""
    return bytes([Op.READ_BLOCK_LIMITS, 0, 0, 0, 0, 0])


def read_position_long() -> bytes:
    """READ POSITION, long form: block and file number. The allocation length of this form is 0."""
    return bytes([Op.READ_POSITION, 0x06, 0, 0, 0, 0, 0, 0, 0, 0])


def read_6(size_bytes: int, *, suppress_length: bool = False) -> bytes:
    """READ(6) of one block of any length up to `size_bytes`.

    With `suppress_length` (SILI) a shorter block is no error, but a longer one is cut without a word too.
    """
    return bytes([Op.READ_6, suppress_length << 1]) + field(size_bytes, 3) + b"\0"


def write_6(size_bytes: int) -> bytes:
    """WRITE(6) of one block of that length."""
    return bytes([Op.WRITE_6, 0]) + field(size_bytes, 3) + b"\0"


def write_filemarks_6(count: int, *, immediate: bool) -> bytes:
    """WRITE FILEMARKS(6); not immediate, it ends when all is on the medium, and with `count` 0 it is a flush."""
    return bytes([Op.WRITE_FILEMARKS_6, immediate]) + field(count, 3) + b"\0"


def write_filemarks_16(count: int, *, block: int, partition: int = 0, immediate: bool) -> bytes:
    """WRITE FILEMARKS(16), which says where they go."""
    head = bytes([Op.WRITE_FILEMARKS_16, immediate, 0]) + field(partition, 1)
    return head + field(block, 8) + field(count, 3) + b"\0"


def space_6(over: Space, count: int = 0) -> bytes:
    """SPACE(6); a negative count goes backwards."""
    return bytes([Op.SPACE_6, over]) + signed_field(count, 3) + b"\0"


def space_16(over: Space, count: int = 0) -> bytes:
    """SPACE(16); a negative count goes backwards."""
    return bytes([Op.SPACE_16, over, 0, 0]) + signed_field(count, 8) + bytes(4)


def locate_10(block: int) -> bytes:
    """LOCATE(10) by logical block in the current partition."""
    return bytes([Op.LOCATE_10, 0, 0]) + field(block, 4) + bytes(3)


def locate_16(block: int) -> bytes:
    """LOCATE(16) by logical block in the current partition."""
    return bytes([Op.LOCATE_16, 0, 0, 0]) + field(block, 8) + bytes(4)


def rewind(*, immediate: bool = False) -> bytes:
    """REWIND."""
    return bytes([Op.REWIND, immediate, 0, 0, 0, 0])


def load_unload(*, load: bool, immediate: bool = False) -> bytes:
    """LOAD UNLOAD: thread, or rewind, unthread and eject."""
    return bytes([Op.LOAD_UNLOAD, immediate, 0, 0, load, 0])


def erase_6(*, long: bool, immediate: bool = False) -> bytes:
    """ERASE(6): with `long` to the end of the tape, else only an end of data at the head."""
    return bytes([Op.ERASE_6, immediate << 1 | long, 0, 0, 0, 0])


def erase_16(block: int, *, long: bool, immediate: bool = False, partition: int = 0) -> bytes:
    """ERASE(16): the same, which says where it begins."""
    head = bytes([Op.ERASE_16, immediate << 1 | long, 0]) + field(partition, 1)
    return head + field(block, 8) + bytes(4)
