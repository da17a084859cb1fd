"""Recalls: fetching frames from tape into the staging cache. Blocking, runs in a mover."""
