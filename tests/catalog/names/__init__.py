"""The names file of a set."""
