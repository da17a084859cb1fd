"""Searching all sets."""
