"""Comparing ledger, indexes, local trailers and staging with each other: one function per check."""
