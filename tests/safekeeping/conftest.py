"""The archive is the one that is checked."""

from __future__ import annotations

from tests.check.conftest import made as made
from tests.check.conftest import rig as rig
