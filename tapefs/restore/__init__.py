"""Restoring files straight from tape, without the mount."""

from tapefs.restore.engine import restore
from tapefs.restore.records import FrameWish, RestoreProgress, RestoreReport, Trouble

__all__ = ["FrameWish", "RestoreProgress", "RestoreReport", "Trouble", "restore"]
