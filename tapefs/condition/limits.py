"""What cartridges are made for. Pure; any thread.

Loads are IBM's figures for its cartridges. Over its whole length a tape may run about 16,000 times (Proxmox's
assumption, too); writing or reading it once from beginning to end takes as many runs as it has wraps.
"""

from __future__ import annotations

#: Wraps of a full cartridge by generation. LTO-10's are not published.
WRAPS = {1: 48, 2: 64, 3: 44, 4: 56, 5: 80, 6: 136, 7: 112, 8: 208, 9: 280}
RUNS = 16_000
#: Years after which makers promise less; they name 15 to 30.
OLD_YEARS, VERY_OLD_YEARS = 15, 25
#: How often a cleaning cartridge cleans.
CLEANINGS = 50
_FIRST_WITH_MORE_LOADS = 5


def most_loads(generation: int) -> int:
    """Return how often a cartridge may be loaded."""
    return 20_000 if generation >= _FIRST_WITH_MORE_LOADS else 10_000


def most_passes(generation: int) -> int | None:
    """Return how often a cartridge may be written or read from beginning to end; None when that is not known."""
    wraps = WRAPS.get(generation)
    return None if wraps is None else RUNS // wraps
