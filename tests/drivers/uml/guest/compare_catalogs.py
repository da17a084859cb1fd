"""In the guest: the catalogs that came back from the tape, compared with the one that was deleted.

compare_catalogs.py FULL INCREMENTAL: in /disk/was is the old one, in /disk/index, /disk/trailers, /disk/payloads and
/disk/imported are those that came back by that way.
"""

from __future__ import annotations

import sys
from pathlib import Path

from catalog.lmdb_ledger import LmdbLedger
from tests.rebuild.same import Records, index_rows, records, shown

DISK = Path("/disk")
DELETED = b"/disk/source/empty"


def ledger_of(folder: Path) -> Records:
    with LmdbLedger.open(folder / "ledger") as ledger:
        assert ledger.verify() == []
        return records(ledger)


def main(full: str, incremental: str) -> None:
    was = DISK / "was"
    known = ledger_of(was)
    assert sum(name.startswith("set ") for name in known) == 2
    for way in ("index", "trailers", "imported"):
        assert ledger_of(DISK / way) == known, way
        for set_id in (full, incremental):
            assert index_rows(DISK / way / f"index/{set_id}.lmdb") == index_rows(was / f"index/{set_id}.lmdb"), way
        for trailer in (was / "trailers").iterdir():
            assert (DISK / way / "trailers" / trailer.name).read_bytes() == trailer.read_bytes(), way
        print(way, len(known), "records")
    by_payloads = DISK / "payloads"
    assert ledger_of(by_payloads).keys() == known.keys()
    before, after = (shown(folder / f"index/{full}.lmdb") for folder in (was, by_payloads))
    assert before == after
    before, after = (shown(folder / f"index/{incremental}.lmdb") for folder in (was, by_payloads))
    assert after.keys() - before.keys() == {DELETED}
    assert not before.keys() - after.keys()
    print("payloads", len(after), "names")


if __name__ == "__main__":
    main(*sys.argv[1:])
