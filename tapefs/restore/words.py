"""What a restore has not brought back, in words: what to do differs, so each kind is counted apart. Pure."""

from __future__ import annotations

from tapefs.restore.records import RestoreReport


def missing_of(report: RestoreReport) -> str:
    """Return how much is not as it was recorded, by what a person can do about it; empty when nothing is."""
    counts = [
        (report.offline, "on tapes that are not here (put them in: the lines name them)"),
        (report.damaged, "damaged, and not to be had from any tape here (look for another copy, or an older set)"),
        (report.locked, "locked (their key is not here: `tapefs key unlock`)"),
        (report.unread, "not read this time (look at `tapefs drives`, and try again)"),
        (report.skipped, "already there (--overwrite replaces them)"),
        (report.failed, "failed"),
        (sum(refusal.count for refusal in report.refusals if not refusal.is_expected), "refused by the system"),
    ]
    return ", ".join(f"{count:,} {what}" for count, what in counts if count)
