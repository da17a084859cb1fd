"""Verifications: copies that are read back, in line behind all other work."""
