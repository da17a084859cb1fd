"""What locates really take on a drive: noted while recalls run, and learnt from. Blocking; the drive's thread.

`drives/<name>.lto<generation>.locates` has a line of JSON per locate of a recall, the newest some thousand;
`drives/<name>.lto<generation>.motion` has the coefficients that were fitted to them. Without either those of the
generation hold. Losing them loses nothing but better plans, so nothing is synced.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import structlog

from drivers.interface import BlockNo, Drive
from drivers.virtual.generations import GENERATIONS, lto
from drivers.virtual.motion import Coefficients, Motion

#: Above this size a log keeps its newest lines.
_LARGEST_BYTES = 512 * 1024
_KEPT_LINES = 2000
#: So many locates are needed to fit anything.
_LEAST_LOCATES = 200

log = structlog.get_logger(__name__)


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A locate; bytes of payload from the start of the tape."""

    start: int
    target: int
    predicted_s: float
    seconds: float


class Learned(msgspec.Struct, frozen=True, kw_only=True):
    """What was fitted; `used` locates, the median of the absolute errors before and after."""

    coefficients: Coefficients
    used: int
    error_before_s: float
    error_s: float


def motion_of_drive(folder: Path, name: str, generation: int) -> Motion:
    """Return the motion of a drive with a cartridge, as far as it was learnt; of the nearest generation if unknown."""
    known = _modelled(generation)
    try:
        learned = msgspec.json.decode(_path(folder, name, known, "motion").read_bytes(), type=Learned)
    except FileNotFoundError:
        return Motion(lto(known))
    except (OSError, msgspec.DecodeError) as error:
        log.warning("what was learnt of the drive's motion is unreadable", drive=name, error=str(error))
        return Motion(lto(known))
    return Motion(lto(known), learned.coefficients)


class LocateLog:
    """Notes the locates of one drive with the cartridge that is in it."""

    def __init__(self, folder: Path, name: str, drive: Drive) -> None:
        self._drive = drive
        #: What is expected of them.
        self.motion = motion_of_drive(folder, name, drive.status().medium_generation or 0)
        self._path = _path(folder, name, self.motion.generation.number, "locates")

    def locate(self, target: BlockNo, block_bytes: int) -> None:
        """Locate, and note how long it took. Raises what the drive raises; those locates are not noted."""
        drive = self._drive
        start, before_s = drive.position().block, drive.status().counters.seconds.locate
        drive.locate(target)
        seconds = drive.status().counters.seconds.locate - before_s
        start_byte, target_byte = start * block_bytes, target * block_bytes
        predicted_s = self.motion.locate_s(start_byte, target_byte)
        line = Line(start=start_byte, target=target_byte, predicted_s=round(predicted_s, 3), seconds=round(seconds, 3))
        try:
            with self._path.open("ab") as file:
                file.write(msgspec.json.encode(line) + b"\n")
        except OSError as error:
            log.warning("a locate could not be noted", error=str(error))


def learn(folder: Path, name: str, generation: int) -> Learned | None:
    """Fit the coefficients to what was noted; return what is used from now on, None for what was used before.

    Raises OSError.
    """
    known = _modelled(generation)
    path = _path(folder, name, known, "locates")
    if not path.exists():
        return None
    lines = path.read_bytes().splitlines(keepends=True)
    if path.stat().st_size > _LARGEST_BYTES:
        lines = lines[-_KEPT_LINES:]
        _replace(path, b"".join(lines))
    if len(lines) < _LEAST_LOCATES:
        return None
    from tapefs.planner.fit import Locate, refit  # With numpy, which most movers never need.

    noted = [each for each in map(_line, lines) if each is not None]
    fit = refit(Motion(lto(known)), [Locate(each.start, each.target, each.seconds) for each in noted])
    if fit.error_s >= fit.error_before_s:
        return None
    learned = Learned(
        coefficients=fit.coefficients, used=fit.used, error_before_s=fit.error_before_s, error_s=fit.error_s
    )
    _replace(_path(folder, name, known, "motion"), msgspec.json.encode(learned))
    return learned


def _modelled(generation: int) -> int:
    return min(max(generation, min(GENERATIONS)), max(GENERATIONS))


def _line(text: bytes) -> Line | None:
    """Return what a line says; None for one that a crash has torn."""
    try:
        return msgspec.json.decode(text, type=Line)
    except msgspec.DecodeError:
        return None


def _path(folder: Path, name: str, generation: int, what: str) -> Path:
    return folder / f"{name}.lto{generation}.{what}"


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(content)
    temporary.rename(path)
