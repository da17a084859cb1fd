"""The keys that are unlocked: here, for what is decided here, and in every mover, which decrypts. One trio run."""

from __future__ import annotations

import structlog

from sidecar.drives.movers import Mover, MoverDied
from tapefs.home import Home
from tapefs.keys.identity import Identity
from tapefs.keys.told import tell_unlocked
from tapefs.mover.messages import UseKeys

log = structlog.get_logger(__name__)


class Unlocking:
    """Has all movers use the same keys as this process."""

    def __init__(self, home: Home) -> None:
        self._ring = home.keyring
        self._path = home.unlocked
        #: The newest of each drive.
        self._movers: dict[str, Mover] = {}
        self._publish()

    async def greet(self, mover: Mover) -> None:
        """There is another mover, which knows no key. Raises MoverDied."""
        self._movers[mover.drive] = mover
        if len(self._ring):
            await mover.tell(self._message())

    def fingerprints(self) -> list[str]:
        """Return those of the keys that are unlocked."""
        return sorted(identity.fingerprint for identity in self._ring.identities())

    async def unlock(self, identity: Identity) -> None:
        """Unlock a key; harmless twice."""
        self._ring.add(identity)
        log.info("key unlocked", fingerprint=identity.fingerprint)
        await self._tell()

    async def lock(self, fingerprint: str) -> bool:
        """Lock a key; False when it was not unlocked."""
        was_unlocked = self._ring.remove(fingerprint)
        log.info("key locked", fingerprint=fingerprint)
        await self._tell()
        return was_unlocked

    def _publish(self) -> None:
        """Tell mounts. A disk that is full has them show a state that is not the newest: reads are answered here."""
        try:
            tell_unlocked(self._path, self.fingerprints())
        except OSError as error:
            log.warning("mounts are not told which keys are unlocked", error=str(error))

    async def _tell(self) -> None:
        self._publish()
        for mover in list(self._movers.values()):
            try:
                await mover.tell(self._message())
            except MoverDied:
                continue  # The next of that drive will be greeted.

    def _message(self) -> UseKeys:
        return UseKeys(secrets=[identity.secret for identity in self._ring.identities()])
