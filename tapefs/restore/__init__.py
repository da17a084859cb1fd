"""Restoring files straight from tape, without the mount."""

from tapefs.restore.engine import restore
from tapefs.restore.records import FrameWish, Refusal, RestoreProgress, RestoreReport, Trouble

__all__ = ["FrameWish", "Refusal", "RestoreProgress", "RestoreReport", "Trouble", "restore"]
