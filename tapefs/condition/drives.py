"""What is to be said of a drive, from the mountings it has had. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from catalog.life_records import CLEANING, Mounting
from drivers.health import CLEANING_FLAGS
from drivers.scsi.tape_alerts import ALERTS
from tapefs.condition.blame import Blame, has_failed

#: TapeAlert flags that speak of the drive itself.
_OF_DRIVES = frozenset({26, 27, 28, 30, 31, 32, 35, 36, 37, 38, 39, 57, 58})
#: Warmer than this is too warm for tapes: drives are specified up to it at the medium.
_HOT_C = 52


def is_cleaning_wanted(mountings: Sequence[Mounting]) -> bool:
    """Has the drive asked for a cleaning since it was cleaned last? Its mountings, oldest first."""
    wanted = False
    for each in mountings:
        if CLEANING in each.purposes:
            wanted = False
        elif CLEANING_FLAGS.intersection(each.alerts):
            wanted = True
    return wanted


def sentences_of(name: str, mountings: Sequence[Mounting], blame: Blame) -> list[str]:
    """Say what is known against a drive; its mountings, oldest first. Empty: nothing is."""
    said = []
    if is_cleaning_wanted(mountings):
        said.append(f"it has asked to be cleaned: `tapefs tape clean {name}`")
    if codes := blame.drives.get(name):
        said.append(f"it has failed with {len(codes)} tapes that fail in no other drive: have it examined")
    failed = {each.code for each in mountings if has_failed(each)}
    for code in sorted(failed & blame.tapes.keys()):
        said.append(f"tape {code} has failed in it, and in other drives, too: that is the tape's fault")
    for code in sorted(code for code in failed if blame.unsure.get(code) == name):
        said.append(f"tape {code} has failed in it, and neither with another: which is to blame cannot be told yet")
    alerts = {number for each in mountings for number in each.alerts} & _OF_DRIVES
    said += [f"{ALERTS[number].message} [TapeAlert {number}]" for number in sorted(alerts)]
    hottest = max((each.temperature_c or 0 for each in mountings), default=0)
    if hottest > _HOT_C:
        said.append(f"it was {hottest} °C warm: see to its air")
    return said
