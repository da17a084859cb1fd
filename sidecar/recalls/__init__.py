"""Recalls: who may have bytes fetched, who waits, which tape is read in which order, and what stays on the disk."""
