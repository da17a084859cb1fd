"""Programs that others wrote read the archive by WebDAV: rclone, cadaver, davfs2, curl, and litmus."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.sidecar.dav.conftest import PASSWORD, USER, Site


def run(
    *command: str, given: str = "", variables: Mapping[str, str] | None = None, is_good: bool = True
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, capture_output=True, text=True, input=given, timeout=120, env=os.environ | dict(variables or {})
    )
    assert not is_good or done.returncode == 0, (done.stdout, done.stderr)
    return done


def rclone(site: Site, folder: Path, *command: str, is_good: bool = True) -> subprocess.CompletedProcess[str]:
    obscured = run("rclone", "obscure", "-", given=PASSWORD).stdout.strip()
    variables = {
        "RCLONE_CONFIG": str(folder / "rclone.conf"),
        "RCLONE_CONFIG_TAPE_TYPE": "webdav",
        "RCLONE_CONFIG_TAPE_URL": site.root + site.inner,
        "RCLONE_CONFIG_TAPE_USER": USER,
        "RCLONE_CONFIG_TAPE_PASS": obscured,
    }
    return run("rclone", *command, variables=variables, is_good=is_good)


def test_rclone_copies_a_tree_from_tape(site: Site, tmp_path: Path) -> None:
    rclone(site, tmp_path, "copy", "tape:", str(tmp_path / "copy"), "--retries", "1")
    run("diff", "-r", str(site.tree), str(tmp_path / "copy"))
    rclone(site, tmp_path, "check", "--download", str(site.tree), "tape:")
    times = {path: (path.stat().st_mtime, (site.tree / path.relative_to(tmp_path / "copy")).stat().st_mtime)
             for path in (tmp_path / "copy").rglob("*") if path.is_file()}  # fmt: skip
    assert all(int(copied) == int(original) for copied, original in times.values())


def test_rclone_cannot_write(site: Site, tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"new")
    for command in (("copy", str(tmp_path / "new"), "tape:"), ("mkdir", "tape:new"), ("delete", "tape:large"),
                    ("moveto", "tape:large", "tape:other")):  # fmt: skip
        done = rclone(site, tmp_path, *command, "--retries", "1", "--low-level-retries", "1", is_good=False)
        assert done.returncode != 0
        assert "read" in done.stderr or "403" in done.stderr, done.stderr
    assert site.ask("HEAD", site.at("large")).status == 200


def test_cadaver_lists_and_gets(site: Site, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text(f'machine 127.0.0.1 login {USER} password "{PASSWORD}"\n')
    (tmp_path / ".netrc").chmod(0o600)
    out = tmp_path / "out"
    script = f'ls\nget large "{out}"\ncd "folder 1"\nls\nmkcol new\nquit\n'
    done = run("cadaver", site.root + site.inner, given=script, variables={"HOME": str(tmp_path)})
    assert "Coll:   folder 1" in done.stdout, done.stdout
    assert "3000000" in done.stdout
    assert "ünder 2" in done.stdout
    assert "Creating `new': failed:\n403" in done.stdout, done.stdout
    assert out.read_bytes() == (site.tree / "large").read_bytes()


@contextmanager
def mounted(site: Site, folder: Path) -> Iterator[Path]:
    """The archive mounted by davfs2, which keeps its cache as a user of its own: tmp_path is closed to that one."""
    with tempfile.TemporaryDirectory() as cache:
        shutil.chown(cache, group="davfs2")
        os.chmod(cache, 0o770)
        with mounted_with(site, folder, cache) as point:
            yield point


@contextmanager
def mounted_with(site: Site, folder: Path, cache: str) -> Iterator[Path]:
    point = folder / "mnt"
    point.mkdir()
    config, secrets = folder / "davfs2.conf", folder / "secrets"
    config.write_text(f"cache_dir {cache}\nsecrets {secrets}\nask_auth 0\nbuf_size 64\n")
    url = f"{site.root}/dav/jobs/data/latest/"
    secrets.write_text(f'{url} {USER} "{PASSWORD}"\n')
    secrets.chmod(0o600)
    done = run("mount.davfs", url, str(point), "-o", f"ro,conf={config}", is_good=False)
    if done.returncode != 0:
        pytest.skip(f"davfs2 cannot mount here: {done.stderr}")
    try:
        yield point
    finally:
        for _ in range(50):
            if run("umount", str(point), is_good=False).returncode == 0:
                break
            time.sleep(0.2)
        assert not os.path.ismount(point)


@pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="mounting takes root and /dev/fuse")
def test_davfs2_mounts_it(site: Site, tmp_path: Path) -> None:
    with mounted(site, tmp_path) as point:
        inner = point / site.tree.relative_to("/")
        run("diff", "-r", str(site.tree), str(inner))
        assert (inner / "large").stat().st_size == 3_000_000
        with (inner / "large").open("rb") as file:
            file.seek(2_000_000)
            assert file.read(10) == (site.tree / "large").read_bytes()[2_000_000:2_000_010]


def test_curl_goes_on_where_it_stopped(site: Site, tmp_path: Path) -> None:
    content = (site.tree / "large").read_bytes()
    (tmp_path / "out").write_bytes(content[:1_234_567])
    target = ["-C", "-", "-o", str(tmp_path / "out")]
    run("curl", "-sS", "--fail", "-u", f"{USER}:{PASSWORD}", *target, site.root + site.at("large"))
    assert (tmp_path / "out").read_bytes() == content
