"""Searching the names in all sets, and following a path through them. Nothing here moves a tape."""
