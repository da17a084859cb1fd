"""Tapes as the product uses them: reading structures, checking labels, finding the place to append. Blocking."""
