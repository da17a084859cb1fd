"""The catalog goes to tape, is lost, and comes back with nothing but mt's counterpart and tar."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backup.trees import odd_tree, snapshot
from tests.test_end_to_end import Installation, wait_until


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(tmp_path)
    made.run("init", "--tapes", "2", "--tape-size", "256MiB")
    yield made
    made.close()


def test_a_lost_catalog_comes_back_from_its_copy_on_tape(installation: Installation, tmp_path: Path) -> None:
    tree = odd_tree(tmp_path)
    set_id = installation.backup(tree, "--name", "odd")
    sidecar = installation.start("serve", "--listen", "127.0.0.1:0")
    wait_until(installation.movers, "the mover")
    copy_id = installation.run("catalog", "backup", "--to-tape").strip()
    (segment,) = json.loads(installation.run("show", copy_id, "--json"))["segment_list"]
    (on_tape,) = segment["copies"]
    sidecar.terminate()
    sidecar.wait()
    for name in ("ledger", "index", "trailers", "reports"):
        shutil.rmtree(installation.home / name)
    payload = installation.home / "library/cartridges" / on_tape["tape"] / f"{on_tape['header_file'] + 1:05}"
    subprocess.run(["tar", "-C", tmp_path, "-xf", payload], check=True)
    (copy,) = tmp_path.glob(f"{str(installation.home).lstrip('/')}/catalog/catalog-*.tar.zst")
    assert f"{1:,} set" in installation.run("catalog", "show", copy)
    installation.run("catalog", "restore", copy)
    installation.run("check")
    installation.run("restore", set_id, "--to", tmp_path / "out")
    assert snapshot(Path(f"{tmp_path / 'out'}{tree}")) == snapshot(tree)


def test_a_running_sidecar_keeps_its_catalog(installation: Installation, tmp_path: Path) -> None:
    installation.run("catalog", "backup", tmp_path / "copy")
    installation.start("serve", "--listen", "127.0.0.1:0")
    wait_until(installation.movers, "the mover")
    assert "sidecar" in installation.run("catalog", "restore", tmp_path / "copy", ok=False)
    assert installation.listing("sets") == []
