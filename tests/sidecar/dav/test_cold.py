"""`[dav] cold = "retry"`: what is on tape answers 503 at once, and is fetched meanwhile."""

from __future__ import annotations

from pathlib import Path

from tests.backup.rig import Rig as BackupRig
from tests.sidecar.dav.conftest import Site
from tests.sidecar.rig import running, wait_until


def test_a_client_that_comes_again(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "cold").write_bytes(b"from tape\n" * 5000)
    (tree / "empty").write_bytes(b"")
    backup = BackupRig(tmp_path)
    backup.backup(tree, name="data")
    backup.close()
    settings = backup.home.path / "tapefs.toml"
    settings.write_text(settings.read_text() + '\n[dav]\ncold = "retry"\n')
    with running(backup.home, listen=True, is_real=True) as rig:
        site = Site(rig, tree)
        site.evict()
        assert site.ask("GET", site.at("empty")).status == 200
        assert site.ask("HEAD", site.at("cold")).status == 200
        reply = site.ask("GET", site.at("cold"))
        assert (reply.status, int(reply.headers["retry-after"]) > 0) == (503, True)
        wait_until(lambda: site.ask("GET", site.at("cold")).status == 200, "fetched")
        reply = site.ask("GET", site.at("cold"), range="bytes=10-19")
        assert (reply.status, reply.body) == (206, b"from tape\n")
