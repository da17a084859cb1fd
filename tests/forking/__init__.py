"""Python programs under test, forked from a process that has their modules already instead of started anew."""
