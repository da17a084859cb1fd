"""A sidecar on a virtual library for all tests of a module, and how to run the scripts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tapefs.client import connect
from tapefs.client.api import Client
from tapefs.setup_home import NewHome, create_home
from tests.sidecar.rig import ROOT, Rig, running


@dataclass
class Site:
    rig: Rig
    client: Client

    def start(self, script: str, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-W", "error", str(ROOT / "scripts" / f"ingest_{script}.py"), *map(str, arguments)],
            env=os.environ | {"TAPEFS_URL": f"unix:{self.rig.home.socket}", "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, script: str, *arguments: object, code: int = 0) -> list[Any]:
        """Return the lines of JSON."""
        process = self.start(script, *arguments)
        out, err = process.communicate(timeout=120)
        assert process.returncode == code, out + err
        self.said = err
        return [json.loads(line) for line in out.splitlines()]

    def get(self, path: str, target: Path) -> bytes:
        self.client.download(path, target)
        return target.read_bytes()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("ingest")
    home = create_home(NewHome(path=folder / "home", tapes=6, tape_bytes=64 * 1024**2), 1)
    with running(home, listen=True, is_real=True) as rig, connect(f"unix:{home.socket}") as client:
        yield Site(rig, client)
