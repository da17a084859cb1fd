"""The target as libiscsi's own programs see it. They are a part of Debian's package libiscsi-bin."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from drivers.vtl.portal.chap import Credentials
from tests.drivers.vtl.served import NAME, Serving, serving

pytestmark = pytest.mark.skipif(shutil.which("iscsi-ls") is None, reason="iscsi-ls of libiscsi-bin is not installed")

CREDENTIALS = Credentials("joe", b"a secret of joe", "vtl", b"a secret of vtl")


def run(*command: str) -> tuple[int, str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def ls(served: Serving, login: str = "") -> tuple[int, str]:
    return run("iscsi-ls", "-s", f"iscsi://{login}{served.host}:{served.port}")


def test_discovery_lists_changer_and_drives(tmp_path: Path) -> None:
    with serving(tmp_path / "library") as served:
        code, text = ls(served)
        assert code == 0, text
        lines = [" ".join(line.split()) for line in text.splitlines()]
        assert lines == [
            f"Target:{NAME} Portal:{served.host}:{served.port},1",
            "Lun:0 Type:MEDIA_CHANGER",
            "Lun:1 Type:SEQUENTIAL_ACCESS (No media loaded)",
            "Lun:2 Type:SEQUENTIAL_ACCESS (No media loaded)",
        ]


def test_inquiry_tells_the_serial_number(tmp_path: Path) -> None:
    with serving(tmp_path / "library") as served:
        code, text = run("iscsi-inq", served.url(2))
        assert (code, "Product:VIRTUAL-LTO9" in text) == (0, True), text
        code, text = run("iscsi-inq", "-e", "1", "-c", "128", served.url(2))
        assert (code, served.tapes[1].identity.serial in text) == (0, True), text
        code, text = run("iscsi-inq", served.url(7))
        assert "LOGICAL_UNIT_NOT_SUPPORTED" in text


def test_a_target_that_is_not_there(tmp_path: Path) -> None:
    with serving(tmp_path / "library") as served:
        code, text = run("iscsi-inq", f"iscsi://{served.host}:{served.port}/iqn.2026-01.org.tapefs:other/0")
        assert code != 0
        assert "Target not found" in text


@pytest.mark.parametrize(
    ("login", "is_let_in"),
    [
        ("joe%a secret of joe@", True),
        ("joe%wrong@", False),
        ("jim%a secret of joe@", False),
        ("", False),
    ],
)
def test_chap(tmp_path: Path, login: str, is_let_in: bool) -> None:
    with serving(tmp_path / "library", CREDENTIALS) as served:
        code, text = ls(served, login)
        assert (code == 0, NAME in text) == (is_let_in, is_let_in), text
        code, text = run("iscsi-inq", served.url(1, login))
        assert ("VIRTUAL-LTO9" in text) is is_let_in, text


@pytest.mark.parametrize(("secret", "is_believed"), [("a secret of vtl", True), ("another secret", False)])
def test_mutual_chap(tmp_path: Path, secret: str, is_believed: bool) -> None:
    with serving(tmp_path / "library", CREDENTIALS) as served:
        url = served.url(1, "joe%a secret of joe@") + f"?target_user=vtl&target_password={secret}"
        _, text = run("iscsi-inq", url)
        assert ("VIRTUAL-LTO9" in text) is is_believed, text
