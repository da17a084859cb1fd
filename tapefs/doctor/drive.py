"""What a tape drive says of itself, by commands that move no tape and change nothing. Blocking; one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from drivers.errors import BadAnswer, DriveError, NotReady, NotSupported
from drivers.scsi import cdb as commands
from drivers.scsi import logs
from drivers.scsi.cdb import Op
from drivers.scsi.device import Device
from drivers.scsi.encryption import EncryptionMode, read_encryption_status
from drivers.scsi.generations import generation_of_model
from drivers.scsi.inquiry import TAPE
from drivers.scsi.medium import look_at_medium, read_log
from drivers.scsi.mode_access import DriveSettings, Settings
from drivers.scsi.outcomes import Doing
from drivers.scsi.position import parse_block_limits
from drivers.scsi.tape_alerts import Severity, describe
from drivers.scsi.transport import Transport
from tapefs.doctor.findings import Finding, Grade

#: Without these a drive works, but worse.
_WANTED = {
    Op.LOCATE_16: "a locate to a far block is done in steps",
    Op.LOG_SENSE: "its TapeAlerts cannot be read",
    Op.READ_ATTRIBUTE: "barcodes and capacity of cartridges cannot be read from their memory",
    Op.PERSISTENT_RESERVE_OUT: "other hosts cannot be kept out",
}
_GRADES = {Severity.CRITICAL: Grade.PROBLEM, Severity.WARNING: Grade.WARNING, Severity.INFORMATION: Grade.NOTE}
#: A drive is to be cleaned now, or soon.
_CLEANING = frozenset({20, 21})


@dataclass(frozen=True, slots=True)
class Asked:
    """A drive, by what name people know it, and what block it will get."""

    about: str
    block_bytes: int
    #: Its sg node, for the commands that show the same; "" when it has none.
    sg: str = ""

    def finding(self, grade: Grade, says: str, *, fix: str = "", shows: str = "") -> Finding:
        """Return a finding about it; `shows` is shown only with an sg node, which takes the place of {sg}."""
        return Finding(
            grade=grade, about=self.about, says=says, fix=fix, shows=shows.format(sg=self.sg) if self.sg else ""
        )


def look_at_drive(transport: Transport, asked: Asked) -> Iterator[Finding]:
    """Yield what there is to say; a drive that fails meanwhile is a finding, too."""
    try:
        device = Device(transport)
        if device.identity.device_type != TAPE:
            yield asked.finding(Grade.PROBLEM, f"{device.name} is no tape drive", fix="name a tape drive as a drive")
            return
        for look in (_identity, _block_limits, _commands, _settings, _alerts, _life, _encryption, _medium):
            yield from _looked(look, device, transport, asked)
    except DriveError as error:
        yield asked.finding(Grade.PROBLEM, str(error), shows="sg_inq {sg}")


_Look = Callable[[Device, Transport, Asked], Iterator[Finding]]


def _looked(look: _Look, device: Device, transport: Transport, asked: Asked) -> Iterator[Finding]:
    """Yield what one look finds: an answer that makes no sense does not keep us from the next question."""
    try:
        yield from look(device, transport, asked)
    except (BadAnswer, NotSupported) as error:
        yield asked.finding(Grade.WARNING, f"{error}")


def _identity(device: Device, transport: Transport, asked: Asked) -> Iterator[Finding]:
    generation = generation_of_model(device.identity.product)
    kind = f"LTO-{generation}" if generation else "of a model that is not known here"
    yield asked.finding(Grade.GOOD, f"{device.name}, firmware {device.identity.revision}, {kind}", shows="sg_inq {sg}")


def _block_limits(device: Device, transport: Transport, asked: Asked) -> Iterator[Finding]:
    limits = parse_block_limits(device.read(commands.read_block_limits(), 6))
    most = min(limits.max_bytes or transport.max_transfer_bytes, transport.max_transfer_bytes)
    if most < asked.block_bytes:
        yield asked.finding(
            Grade.PROBLEM,
            f"blocks of {asked.block_bytes:,} bytes do not go through: at most {most:,}",
            fix="make the host adapter's transfers larger, or block_size in tapefs.toml smaller, for new tapes",
            shows="sg_raw -r 6 {sg} 05 00 00 00 00 00",
        )
    else:
        yield asked.finding(Grade.GOOD, f"blocks of up to {most:,} bytes, {asked.block_bytes:,} are used")


def _commands(device: Device, transport: Transport, asked: Asked) -> Iterator[Finding]:
    known = {each.opcode for each in device.supported_commands()}
    if not known:
        yield asked.finding(
            Grade.NOTE, "does not say which commands it knows: times to wait are those of its generation",
            shows="sg_opcodes {sg}",
        )  # fmt: skip
    for opcode, consequence in _WANTED.items():
        if known and opcode not in known:
            yield asked.finding(Grade.WARNING, f"does not know {opcode.name}: {consequence}", shows="sg_opcodes {sg}")


def _settings(device: Device, transport: Transport, asked: Asked) -> Iterator[Finding]:
    found: Settings = DriveSettings(device).look()
    words = [
        "compresses" if found.compresses else "does not compress",
        "buffers" if found.buffered else "does not buffer",
        f"blocks of {found.block_bytes:,} bytes" if found.block_bytes else "blocks of any length",
    ]
    yield asked.finding(Grade.GOOD, f"is set to: {', '.join(words)}; tapefs sets what it needs", shows="sg_modes {sg}")
    if found.compression is None:
        yield asked.finding(Grade.NOTE, "cannot be told whether to compress: what is compressed already may grow")


def _alerts(device: Device, transport: Transport, asked: Asked) -> Iterator[Finding]:
    page = read_log(device, logs.TAPE_ALERT_RESPONSE)
    if page is None:
        yield asked.finding(
            Grade.NOTE, "has no page of TapeAlerts that can be read without clearing it (12h)", shows="sg_logs {sg}"
        )
        return
    flags = logs.parse_tape_alert_response(page)
    for alert in describe(flags):
        fix = "put a cleaning cartridge in" if alert.number in _CLEANING else ""
        yield asked.finding(
            _GRADES[alert.severity], f"TapeAlert {alert.number}: {alert.message}", fix=fix,
            shows="sg_logs -p 0x12 {sg}",
        )  # fmt: skip
    if not flags:
        yield asked.finding(Grade.GOOD, "no TapeAlert, no cleaning wanted", shows="sg_logs -p 0x12 {sg}")


def _life(device: Device, transport: Transport, asked: Asked) -> Iterator[Finding]:
    page = read_log(device, logs.DEVICE_STATISTICS)
    if page is None:
        return
    found = logs.parse_device_statistics(page)
    told = [
        f"{value:,} {what}"
        for value, what in (
            (found.loads, "loads"), (found.motion_hours, "hours of motion"), (found.cleanings, "cleanings"),
            (found.hard_write_errors, "hard write errors"), (found.hard_read_errors, "hard read errors"),
        )
        if value is not None
    ]  # fmt: skip
    if told:
        has_errors = bool(found.hard_write_errors or found.hard_read_errors)
        yield asked.finding(
            Grade.NOTE if has_errors else Grade.GOOD, f"life: {', '.join(told)}", shows="sg_logs -p 0x14 {sg}"
        )


def _encryption(device: Device, transport: Transport, asked: Asked) -> Iterator[Finding]:
    try:
        status = read_encryption_status(device)
    except (NotSupported, NotReady):
        yield asked.finding(Grade.GOOD, "has no encryption, or none that a host may ask about now")
        return
    if status.encrypts is EncryptionMode.OFF and status.decrypts is EncryptionMode.OFF:
        yield asked.finding(Grade.GOOD, "encryption is off")
        return
    yield asked.finding(
        Grade.WARNING,
        f"encryption is on (writing: {status.encrypts.value}, reading: {status.decrypts.value}): somebody has left a "
        "key in it, or the library manages keys; what is written now can be read with that key only",
        fix="make sure that you have the key, or clear it: stenc -f DEVICE -e off",
        shows="sg_raw -r 8k {sg} a2 20 00 20 00 00 00 00 20 00 00 00",
    )


def _medium(device: Device, transport: Transport, asked: Asked) -> Iterator[Finding]:
    done = device.execute(commands.test_unit_ready(), Doing.ASK)
    error = device.error_in(done, Doing.ASK)
    if isinstance(error, NotReady):
        yield asked.finding(Grade.GOOD, "no tape is threaded")
        return
    if error is not None:
        raise error
    settings = DriveSettings(device).look()
    medium = look_at_medium(device, is_loaded=True, density=settings.density)
    if medium is None:
        return
    kind = f"LTO-{medium.generation}" if medium.generation else "unknown kind"
    protected = ", write-protected" if settings.write_protected else ""
    yield asked.finding(
        Grade.GOOD, f"a tape is threaded: {medium.barcode or 'without a barcode'}, {kind}{protected}",
        shows="sg_read_attr {sg}",
    )  # fmt: skip
