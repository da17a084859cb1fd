"""The same backup and the same restore, with encrypted tapes and with plain ones, in turns. Blocking."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from statistics import median

from catalog.lmdb_ledger import LmdbLedger
from tapefs.bench.backup import Taken, backup_at
from tapefs.bench.stand import Result, Stand, ratio_of, tapefs
from tapefs.bench.trees import Tree
from tapefs.bench.usage import Spent, Staff, spent
from tapefs.client.presence import connected
from tapefs.home import Home, open_home
from tapefs.keys.identity import Identity
from tapefs.keys.opening import VARIABLE
from tapefs.keys.store import KeyStore

_PASSPHRASE = b"nothing secret here"
_LEVEL = "1"


@dataclass(frozen=True, slots=True)
class _Turn:
    """One run: a backup, and a restore of all of it from tape."""

    backup: Taken
    restore: Spent


def run(stand: Stand, tree: Tree, runs: int) -> list[Result]:
    """Measure both."""
    print(f"encryption: {tree}")
    file = stand.folder / "passphrase"
    file.write_bytes(_PASSPHRASE)
    file.chmod(0o600)
    os.environ[VARIABLE] = str(file)
    plain, encrypted = [], []
    try:
        for number in range(runs):
            plain.append(_turn(stand, stand.new_home(f"plain{number}"), tree))
            print(f"  plain: backup {plain[-1].backup}, restore {plain[-1].restore}")
            encrypted.append(_turn(stand, _encrypted(stand.new_home(f"encrypted{number}")), tree))
            print(f"  encrypted: backup {encrypted[-1].backup}, restore {encrypted[-1].restore}")
    finally:
        del os.environ[VARIABLE]
    size = f"{tree.files:,} files, {tree.bytes / 1e9:.1f} GB"
    written = [each.backup.spent for each in encrypted], [each.backup.spent for each in plain]
    read = [each.restore for each in encrypted], [each.restore for each in plain]
    return [
        *_results(f"backup of {size} to encrypted tapes", *written),
        *_results(f"restore of {size} from encrypted tapes", *read),
    ]


def _results(what: str, ours: list[Spent], theirs: list[Spent]) -> list[Result]:
    return [
        _result(what, [each.wall_s for each in ours], [each.wall_s for each in theirs]),
        _result("processor time of that", [each.cpu_s for each in ours], [each.cpu_s for each in theirs]),
    ]


def _result(what: str, ours: list[float], theirs: list[float]) -> Result:
    ratio = ratio_of(ours, theirs)
    return Result(what, f"{median(ours):.2f} s", "the same with plain ones", f"{median(theirs):.2f} s", ratio, "", None)


def _turn(stand: Stand, home: Home, tree: Tree) -> _Turn:
    out = stand.folder / "out"
    with connected(home), Staff(home) as staff:
        taken = backup_at(_LEVEL, home, *tree.sources)
        with LmdbLedger.open(home.ledger, readonly=True) as ledger:
            (backup_set,) = ledger.backup_sets()
        restored = spent(tapefs(home, "restore", backup_set.set_id, "--to", out), staff.cpu_s)
    shutil.rmtree(out)
    shutil.rmtree(home.path)
    return _Turn(taken, restored)


def _encrypted(home: Home) -> Home:
    KeyStore(home.keys).add("bench", Identity.new(), _PASSPHRASE)
    with (home.path / "tapefs.toml").open("a") as toml:
        toml.write('\n[encryption]\nkey = "bench"\n')
    return open_home(home.path)
