"""Copying what still lives off a tape, so that the tape can be begun anew."""
