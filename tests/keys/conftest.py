"""The rig of the backups."""

from __future__ import annotations

from tests.backup.conftest import _no_thread_is_left as _no_thread_is_left
from tests.backup.conftest import make_rig as make_rig
from tests.backup.conftest import rig as rig
