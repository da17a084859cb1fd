"""A library whose robot is a human: what its changer sees through the movers, and what people ask and answer.

`MoverEyes` is called in the changer's thread and asks in the trio run; all else belongs to the trio run.
"""

from __future__ import annotations

from functools import partial

import structlog
import trio

from catalog.errors import CatalogError
from catalog.ids import VolumeId
from catalog.ledger import Ledger
from drivers.errors import DeviceFailed, NotReady
from drivers.human.changer import HumanChanger, Seen
from drivers.human.desk import Prompt
from sidecar.drives.movers import CommandFailed, Mover, MoverDied
from tapefs.mover.messages import Look, SeenTape, Unload
from tapefs.tape.barcodes import is_cleaning

log = structlog.get_logger(__name__)


class MoverEyes:
    """Looks into drives through their movers; implements `drivers.human.changer.Eyes`."""

    def __init__(self, ledger: Ledger) -> None:
        """To be made in the trio run."""
        self._ledger = ledger
        self._movers: dict[int, Mover] = {}
        self._token = trio.lowlevel.current_trio_token()
        #: Codes of tapes that may turn out to be anything: somebody wants to know what they are, or to overwrite them.
        self.unsure: set[str] = set()

    def open(self, drive: int, mover: Mover) -> None:
        """From now on this mover has the drive."""
        self._movers[drive] = mover

    def close(self, drive: int) -> None:
        """Nobody has it any more."""
        self._movers.pop(drive, None)

    def look(self, drive: int) -> Seen:
        """Tell what is there; moves nothing."""
        return _seen(self._from_thread(drive, None))

    def identify(self, drive: int, wanted: str) -> Seen:
        """Thread what is there and read its label. Raises NotReady, DeviceFailed."""
        if is_cleaning(wanted):
            return self._identify_cleaning(drive, wanted)
        try:
            volume_id = self._ledger.volume_by_code(wanted).volume_id
        except CatalogError as error:
            raise DeviceFailed(f"tape {wanted} cannot be told from others: {error}") from error
        seen = self._from_thread(drive, volume_id)
        if not seen.full:
            raise NotReady(f"no tape is in drive{drive}")
        if wanted in self.unsure and not self._is_another(seen.name, wanted):
            return Seen(full=True, threaded=seen.threaded, name=wanted)
        return _seen(seen)

    def _identify_cleaning(self, drive: int, wanted: str) -> Seen:
        """Nothing of such a cartridge can be read, and few drives show it: the human's word counts against nothing."""
        seen = self.look(drive)
        if seen.threaded:
            return Seen(full=True, threaded=True, name=seen.name or "a tape with data")
        return seen if seen.name is not None else Seen(full=True, threaded=False, name=wanted)

    def _is_another(self, name: str | None, wanted: str) -> bool:
        """Is that a tape that the ledger knows as another one?"""
        try:
            return name is not None and self._ledger.volume_by_code(name).code != wanted
        except CatalogError:
            return False

    def eject(self, drive: int) -> None:
        """Unthread and eject."""
        trio.from_thread.run(self._eject, drive, trio_token=self._token)

    def _from_thread(self, drive: int, volume_id: VolumeId | None) -> SeenTape:
        return trio.from_thread.run(self._look, drive, volume_id, trio_token=self._token)

    async def _look(self, drive: int, volume_id: VolumeId | None) -> SeenTape:
        try:
            done = await self._mover(drive).call(lambda number: Look(id=number, volume_id=volume_id))
        except (CommandFailed, MoverDied) as error:
            raise DeviceFailed(str(error)) from error
        if done.seen is None:
            raise AssertionError("a Look was answered without what was seen")
        return done.seen

    async def _eject(self, drive: int) -> None:
        try:
            await self._mover(drive).call(lambda number: Unload(id=number))
        except (CommandFailed, MoverDied) as error:
            raise DeviceFailed(str(error)) from error

    def _mover(self, drive: int) -> Mover:
        if drive not in self._movers:
            raise DeviceFailed(f"drive{drive} does not work at the moment: see `tapefs drives`")
        return self._movers[drive]


def _seen(seen: SeenTape) -> Seen:
    return Seen(full=seen.full, threaded=seen.threaded, name=seen.name)


def give_eyes(changer: object, ledger: Ledger) -> MoverEyes | None:
    """Give a human changer its eyes and let its prompts be logged; None for any other changer. In the trio run."""
    if not isinstance(changer, HumanChanger):
        return None
    eyes = MoverEyes(ledger)
    changer.eyes = eyes
    told: set[tuple[int, str]] = set()
    changer.desk.on_change = partial(_log_new, told)
    return eyes


def _log_new(told: set[tuple[int, str]], prompts: list[Prompt]) -> None:
    now = {(prompt.number, prompt.text) for prompt in prompts}
    for number, text in sorted(now - told):
        log.info("somebody is to move a tape", prompt=number, todo=text)
    told.clear()
    told.update(now)
