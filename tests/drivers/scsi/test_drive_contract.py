"""The contract of drives, through ScsiDrive and the device server of the virtual library."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.drivers.contract import DriveContract
from tests.drivers.scsi.bench import ServedBench


class TestScsiDrive(DriveContract):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> ServedBench:
        return ServedBench(tmp_path)
