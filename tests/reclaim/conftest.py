"""The rig of backups."""

from __future__ import annotations

from tests.backup.conftest import make_rig as make_rig
