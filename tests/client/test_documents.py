"""The examples of docs/client.md, run one behind the other as one program, on a real sidecar."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tapefs.setup_home import NewHome, create_home
from tests.sidecar.rig import ROOT, running


def test_the_examples_run(tmp_path: Path) -> None:
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "client.md").read_text(), re.DOTALL)
    assert len(examples) >= 6
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "a.txt").write_text("a paper")
    home = create_home(NewHome(path=tmp_path / "home", tapes=3, tape_bytes=32 * 1024**2), 1)
    with running(home, listen=True, is_real=True) as rig:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", "\n".join(examples)],
            cwd=tmp_path,
            env=os.environ | {"TAPEFS_URL": f"unix:{rig.home.socket}", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.txt").read_text() == "a paper"
    assert (tmp_path / "papers.tar.zst").stat().st_size > 0
    assert "a.txt" in done.stdout
