"""Tapes: where they lie, who moves them, which one is written next, and what operators want done with them."""
