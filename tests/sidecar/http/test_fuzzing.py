"""What nobody would send, sent to every call: no failure of the server, and answers as the document has them.

Schemathesis makes the requests from /openapi.json, always the same ones, and sends them through a real socket.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sidecar.access.rig import home_with
from tests.sidecar.rig import ROOT, Rig, running, seed_set

#: They stream until their client ends, or until something happens.
ENDLESS = ("/api/v1/arrivals", "/api/v1/events")
#: It writes to whatever folder of this machine it is told.
OUTWARD = "upkeep_copy"
#: The gate has its own tests.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    limits = "requests_per_minute = 1000000\nunknown_per_minute = 1000000"
    home = home_with(tmp_path_factory.mktemp("fuzzing") / "home", "", limits, tape_bytes=64 * 1024**2)
    seed_set(home)
    with running(home, listen=True, is_real=True) as rig:
        yield rig


def refused(rig: Rig) -> list[str]:
    """Operations that always answer 501: TAF has them, and they make no sense here."""
    paths = rig.tcp("GET", "/openapi.json").body["paths"]
    return [each["operationId"] for path in paths.values() for each in path.values() if "501" in each["responses"]]


@pytest.mark.slow
def test_no_request_makes_the_sidecar_fail(rig: Rig, tmp_path: Path) -> None:
    report = tmp_path / "report.txt"
    with report.open("wb") as out:
        done = subprocess.run(
            [
                *(
                    sys.executable,
                    "-m",
                    "schemathesis.cli",
                    *("--config-file", str(Path(__file__).with_name("fuzzing.toml"))),
                    "--no-color",
                    "run",
                    f"http://127.0.0.1:{rig.port}/openapi.json",
                ),
                *("--header", f"Authorization: Bearer {rig.token}"),
                *("--max-examples", "2", "--phases", "examples,fuzzing"),
                *("--checks", ",".join(CHECKS), "--continue-on-failure", "--request-timeout", "20"),
                *("--suppress-health-check", "all"),
                *("--generation-deterministic", "--workers", "2"),
                *(word for path in ENDLESS for word in ("--exclude-path", path)),
                *(word for name in (OUTWARD, *refused(rig)) for word in ("--exclude-operation-id", name)),
            ],
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            timeout=300,
        )
    said = report.read_text(errors="replace")
    assert done.returncode == 0, said[-20_000:]
    assert "Tested:" in said
