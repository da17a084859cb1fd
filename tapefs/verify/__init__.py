"""Reading back what lies on tape, and comparing it with what was written. Blocking, runs in a mover.

trailer   what a segment must hold, by its trailer; names for what was found damaged
places    the tape files of a segment, and which trailer to compare with
payload   the blocks of a payload from front to end, over what is unreadable
sums      checksums, decoding and SHA-256 of frames, in threads
copy      one copy of a segment: all of that, and what becomes of it in the ledger
damage    the file that names what a damaged copy has lost
"""
