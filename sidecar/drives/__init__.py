"""Drives: one task each with its mover, what it does next, its health and its cleaning."""
