"""Fixtures for tests of tapes."""

from __future__ import annotations

from tests.tape.rig import rig as rig
