"""Backup: from a job in the ledger to committed segments on tape. Blocking, runs in a mover.

selection   which trees and which names
scan        the walk, with checkpoints it can go back to
intake      files become members of frames
elsewhere   names of long directories whose members are in earlier segments
frames      buffers, workers: SHA-256 and compression beside each other
body        what a segment holds, apart from its tape: frames and lines
spool       whole segments wait on disk for the tape
stream      frames become committed segments on tape, in order
session     the tape at hand: append position, room, change of tape
set_index   the SET INDEX at the end of a tape or a job
run         one job from begin to completion
"""
